//! One server: how it is reached, and how it is stopped, killed and restarted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lock_testkit::services::redis::{RedisOptions, RedisServer};

const HELPER: &str = "single::a_process_that_never_drops_its_server";

/// Sends a `PING` and returns what comes back within the limit, if anything.
fn ping(port: u16, limit: Duration) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream.write_all(b"PING\r\n").ok()?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[test]
fn a_server_is_reached_over_tcp_and_a_socket_and_gone_after_the_drop() {
    let server = RedisServer::start().unwrap();
    assert_eq!(
        ping(server.port(), Duration::from_secs(5)).as_deref(),
        Some("+PONG\r\n")
    );
    assert_eq!(server.query::<String>("PING").unwrap(), "PONG");
    let (port, directory) = (server.port(), server.directory().to_owned());
    drop(server);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!directory.exists());
}

#[test]
fn a_password_and_the_rights_of_a_user_are_asked_for() {
    let options = RedisOptions::default()
        .with_password("open-sesame")
        .with_user("worker on >secret ~lock:* resetchannels +get");
    let server = RedisServer::start_with(options).unwrap();
    let answer = ping(server.port(), Duration::from_secs(5)).unwrap();
    assert!(answer.starts_with("-NOAUTH"), "{answer}");
    // The fixture's own connection has the password.
    let refused = server
        .query::<String>("ACL DRYRUN worker set lock:a 1")
        .unwrap();
    assert!(refused.contains("no permissions"), "{refused}");
    let allowed = server.query::<String>("ACL DRYRUN worker get lock:a");
    assert_eq!(allowed.unwrap(), "OK");
}

#[test]
fn a_server_with_tls_has_taken_its_certificates() {
    let options = RedisOptions::default().with_client_certificates();
    let server = RedisServer::start_with(options).unwrap();
    assert!(server.certificates().unwrap().authority().exists());
    let answer = ping(server.tls_port().unwrap(), Duration::from_secs(5));
    assert!(answer.is_none_or(|answer| !answer.contains("PONG")));
    assert!(RedisServer::start().unwrap().tls_url().is_err());
}

#[test]
fn a_stopped_server_accepts_and_does_not_answer() {
    let server = RedisServer::start().unwrap();
    server.stop().unwrap();
    assert_eq!(ping(server.port(), Duration::from_millis(100)), None);
    server.resume().unwrap();
    assert!(ping(server.port(), Duration::from_secs(5)).is_some());
}

#[test]
fn a_restart_keeps_the_data_or_loses_it_as_asked() {
    let server = RedisServer::start().unwrap();
    server.query::<()>("SET key 1").unwrap();
    server.restart().unwrap();
    assert_eq!(server.keys().unwrap(), ["key"]);
    server.restart_empty().unwrap();
    assert_eq!(server.keys().unwrap(), [""; 0]);
    server.query::<()>("SET key 1").unwrap();
    server.kill().unwrap();
    assert!(server.stop().is_err());
    server.start_again().unwrap();
    assert_eq!(server.keys().unwrap(), [""; 0]);
}

#[test]
fn an_append_only_file_outlives_a_kill_but_no_empty_restart() {
    let options = RedisOptions::default().with_append_only();
    let server = RedisServer::start_with(options).unwrap();
    server.query::<()>("SET key 1").unwrap();
    server.kill().unwrap();
    server.start_again().unwrap();
    assert_eq!(server.keys().unwrap(), ["key"]);
    server.restart_empty().unwrap();
    assert_eq!(server.keys().unwrap(), [""; 0]);
}

#[test]
fn use_is_counted_with_the_commands_inside_scripts() {
    let server = RedisServer::start().unwrap();
    let before = server.usage().unwrap();
    for _ in 0..10 {
        server.query::<()>("EVAL redis.call('INCR','n') 0").unwrap();
    }
    let after = server.usage().unwrap();
    let commands = after.commands - before.commands;
    assert!((20..60).contains(&commands), "{commands}");
    assert!(after.cpu >= before.cpu && after.memory > 0 && after.clients > 0);
}

#[test]
fn a_lagging_replica_is_promoted_with_what_it_has() {
    let master = RedisServer::start().unwrap();
    let replica = RedisServer::start().unwrap();
    master.query::<()>("SET key 1").unwrap();
    replica.replicate(master.port()).unwrap();
    assert_eq!(replica.keys().unwrap(), ["key"]);
    master.kill().unwrap();
    replica.promote().unwrap();
    replica.query::<()>("SET other 1").unwrap();
}

#[test]
#[ignore = "started by a_killed_process_takes_its_server_along, and never ends by itself"]
fn a_process_that_never_drops_its_server() {
    // On a thread that ends at once: the server must live as long as the process.
    let server = std::thread::spawn(|| RedisServer::start().unwrap())
        .join()
        .unwrap();
    writeln!(std::io::stdout(), "port {}", server.port()).unwrap();
    // Until the other test is gone or has killed this process.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_process_takes_its_server_along() {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", HELPER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let port = BufReader::new(process.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().split_once("port ")?.1.parse().ok())
        .unwrap();
    assert!(ping(port, Duration::from_secs(5)).is_some());
    process.kill().unwrap();
    process.wait().unwrap();
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
}
