//! `cargo xtask bench redis`: locks in Redis against the raw commands, and against other clients.
//!
//! One server of its own, reached over a unix socket and over TCP. The floor is what no lock can
//! do without: `SET NX PX` and a script that compares and deletes, sent from the same I/O thread.

mod contended;
mod contender;
mod floor;
mod keys;
mod ours;
mod ping_pong;
mod python;
mod uncontended;
mod waiters;
mod worker;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lock_benches::Session;
use lock_testkit::services::redis::RedisServer;

/// A way to the server.
#[derive(Clone, Debug)]
struct Path {
    name: &'static str,
    url: String,
}

fn main() -> Result<ExitCode> {
    if let Some((role, arguments)) = lock_benches::role() {
        match role.as_str() {
            worker::ROLE => worker::main(&arguments)?,
            ping_pong::ROLE => ping_pong::echo(&arguments)?,
            unknown => bail!("no role `{unknown}`"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut session = Session::start("redis")?;
    let server = RedisServer::start().map_err(failed)?;
    let paths = [("socket", server.socket_url()), ("tcp", server.url())]
        .map(|(name, url)| Path { name, url });
    for path in &paths {
        ours::assert_that_all_is_stored(&path.url)?;
        uncontended::measure(&mut session, path)?;
        keys::measure(&mut session, path, &server)?;
    }
    for path in &paths {
        contended::measure(&mut session, path, &server)?;
        waiters::measure(&mut session, path, &server)?;
    }
    Ok(session.finish())
}

/// A failure of the testkit is no `Error`, so that any error can become one.
fn failed(failure: lock_testkit::Failure) -> anyhow::Error {
    anyhow::anyhow!("{failure}")
}
