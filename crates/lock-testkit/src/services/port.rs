//! Ports that nobody listens on.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{Ipv4Addr, TcpListener};

use crate::{Failure, Outcome};

/// Below what systems give to outgoing connections, so that a port stays free while its server is
/// restarted.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// A TCP port of the loopback address that nobody listens on now. Another process may be faster:
/// whoever starts a server tries again with another port.
pub(super) fn free() -> Outcome<u16> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(candidate)
        .take(200)
        .find(is_free)
        .ok_or_else(|| Failure::new("no free port in 200 tries"))
}

fn candidate() -> u16 {
    // Every `RandomState` is seeded anew: a source of randomness without a crate for it.
    let random = RandomState::new().build_hasher().finish();
    FIRST + (random % u64::from(COUNT)) as u16
}
