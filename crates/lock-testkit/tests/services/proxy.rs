//! The proxy holds back, delays, cuts and resets.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use lock_testkit::Outcome;
use lock_testkit::services::Proxy;
use lock_testkit::services::proxy::{Direction, Target};

const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_millis(50);

/// A proxy with one open connection through it.
fn connected() -> Outcome<(Proxy, TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let proxy = Proxy::start(Target::Port(port))?;
    let client = TcpStream::connect(proxy.address())?;
    let (server, _) = listener.accept()?;
    for end in [&client, &server] {
        end.set_read_timeout(Some(SOON))?;
    }
    Ok((proxy, client, server))
}

fn send(from: &mut TcpStream, to: &mut TcpStream, length: usize) -> io::Result<()> {
    from.write_all(&vec![7; length])?;
    to.read_exact(&mut vec![0; length])
}

fn is_silent(end: &mut TcpStream) -> io::Result<bool> {
    end.set_read_timeout(Some(NEVER))?;
    let read = end.read(&mut [0; 1]);
    end.set_read_timeout(Some(SOON))?;
    Ok(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
}

#[test]
fn what_was_held_back_arrives_late_and_the_other_way_goes_on() {
    let (proxy, mut client, mut server) = connected().unwrap();
    send(&mut client, &mut server, 6).unwrap();
    proxy.black_hole(Direction::ToServer);
    client.write_all(b"late").unwrap();
    assert!(is_silent(&mut server).unwrap());
    send(&mut server, &mut client, 13).unwrap();
    proxy.heal();
    let mut read = [0; 4];
    server.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"late");
}

#[test]
fn a_cut_forgets_what_was_held_back_and_new_connections_go_on() {
    let (proxy, mut client, mut server) = connected().unwrap();
    proxy.partition();
    client.write_all(b"never").unwrap();
    assert!(is_silent(&mut server).unwrap());
    proxy.cut();
    assert_eq!(server.read(&mut [0; 16]).unwrap(), 0);
    assert_eq!(client.read(&mut [0; 16]).unwrap_or(0), 0);
    proxy.heal();
    let again = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.lead_to(Target::Port(again.local_addr().unwrap().port()));
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    let (mut server, _) = again.accept().unwrap();
    send(&mut client, &mut server, 3).unwrap();
}

#[test]
fn a_reset_is_seen_as_one() {
    let (proxy, mut client, mut server) = connected().unwrap();
    send(&mut client, &mut server, 6).unwrap();
    proxy.reset();
    for end in [&mut client, &mut server] {
        let error = end.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_delay_keeps_the_order() {
    let (proxy, mut client, mut server) = connected().unwrap();
    let delay = Duration::from_millis(80);
    proxy.delay(Direction::ToClient, delay);
    let started = Instant::now();
    server.write_all(b"one").unwrap();
    server.write_all(b"two").unwrap();
    let mut read = [0; 6];
    client.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"onetwo");
    assert!(started.elapsed() >= delay);
}
