//! The conformance suite over three etcd servers.

mod kit;

fn main() -> std::process::ExitCode {
    lock_testkit::main(kit::EtcdKit::new("etcd-cluster", 3))
}
