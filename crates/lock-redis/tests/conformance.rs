//! The conformance suite over one server.

mod kits;

fn main() -> std::process::ExitCode {
    kits::run("redis")
}
