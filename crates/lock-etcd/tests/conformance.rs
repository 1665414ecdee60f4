//! The conformance suite over one etcd server.

mod kit;

fn main() -> std::process::ExitCode {
    lock_testkit::main(kit::EtcdKit::new("etcd", 1))
}
