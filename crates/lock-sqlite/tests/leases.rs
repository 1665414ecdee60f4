//! The conformance suite over one database, with leases.

#[path = "support/kit.rs"]
mod kit;

fn main() -> std::process::ExitCode {
    let ttl = std::time::Duration::from_secs(30);
    lock_testkit::main(kit::SqliteKit::new("sqlite-leases", Some(ttl)))
}
