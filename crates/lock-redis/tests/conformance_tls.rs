//! The conformance suite over TLS.

mod kits;

fn main() -> std::process::ExitCode {
    kits::run("redis-tls")
}
