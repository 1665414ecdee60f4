//! The conformance suite over a master that sentinels replace.

mod kits;

fn main() -> std::process::ExitCode {
    kits::run("redis-sentinel")
}
