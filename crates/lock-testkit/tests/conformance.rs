//! The suite over the in-process backend, which passes it whole; so a case that fails here is at
//! fault itself.

mod kit;

fn main() -> std::process::ExitCode {
    lock_testkit::main(kit::ThreadingKit::default())
}
