//! The conformance suite over a cluster of three masters.

mod kits;

fn main() -> std::process::ExitCode {
    kits::run("redis-cluster")
}
