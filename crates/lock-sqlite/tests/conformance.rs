//! The conformance suite over one database.

#[path = "support/kit.rs"]
mod kit;

fn main() -> std::process::ExitCode {
    lock_testkit::main(kit::SqliteKit::new("sqlite", None))
}
