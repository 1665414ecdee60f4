//! A proxy that changes the scripts on their way to the server.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// A text of the scripts, and what takes its place.
pub(crate) type Change = (&'static str, &'static str);

/// Listens for clients of the server at `port`, and gives them scripts that are changed. Lives as
/// long as the process.
pub(crate) fn start(port: u16, change: Change) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A connection that cannot be carried is closed, which the client notices.
            drop(
                TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                    .map(|server| join(client, server, change)),
            );
        }
    });
    Ok(address)
}

fn join(client: TcpStream, server: TcpStream, change: Change) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut to_client, mut from_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let carried = io::copy(&mut from_server, &mut to_client);
        drop((carried, to_client.shutdown(std::net::Shutdown::Both)));
    });
    std::thread::spawn(move || {
        let (mut requests, mut server) = (BufReader::new(client), server);
        while let Ok(mut words) = read(&mut requests) {
            match &mut words[..] {
                // A digest that no server knows, so that every script comes in full.
                [command, digest, ..] if command == b"EVALSHA" => digest.fill(b'0'),
                [command, script, ..] if command == b"EVAL" => {
                    let real = String::from_utf8_lossy(script);
                    *script = real.replace(change.0, change.1).into_bytes();
                }
                _ => {}
            }
            if server.write_all(&packed(&words)).is_err() {
                break;
            }
        }
        server.shutdown(std::net::Shutdown::Both)
    });
    Ok(())
}

/// One request: an array of strings.
fn read(requests: &mut impl BufRead) -> io::Result<Vec<Vec<u8>>> {
    let count = number(requests)?;
    (0..count)
        .map(|_| {
            let mut word = vec![0; number(requests)? + 2];
            requests.read_exact(&mut word)?;
            word.truncate(word.len() - 2);
            Ok(word)
        })
        .collect()
}

/// The number in a line such as `*3` or `$12`.
fn number(requests: &mut impl BufRead) -> io::Result<usize> {
    let mut line = String::new();
    requests.read_line(&mut line)?;
    let digits = line.get(1..).unwrap_or_default().trim_end();
    digits.parse().map_err(io::Error::other)
}

fn packed(words: &[Vec<u8>]) -> Vec<u8> {
    let mut packed = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        packed.extend(format!("${}\r\n", word.len()).into_bytes());
        packed.extend(word);
        packed.extend(b"\r\n");
    }
    packed
}
