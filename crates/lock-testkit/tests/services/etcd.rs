//! etcd: one node and three, with TLS and users, broken in every way that tests need.

use lock_testkit::Outcome;
use lock_testkit::services::etcd::{self, EtcdCluster, EtcdOptions};

/// The value of a key; empty when it is not there.
fn value(cluster: &EtcdCluster, key: &str) -> Outcome<String> {
    let printed = cluster.control(&["get", key, "--print-value-only"])?;
    Ok(printed.trim().to_owned())
}

fn put(cluster: &EtcdCluster, key: &str, value: &str) -> Outcome {
    cluster.control(&["put", key, value]).map(drop)
}

#[test]
fn a_node_keeps_its_data_over_a_kill_and_forgets_it_when_told_to() -> Outcome {
    let cluster = EtcdCluster::single()?;
    put(&cluster, "key", "1")?;
    cluster.restart()?;
    assert_eq!(value(&cluster, "key")?, "1");
    assert_eq!(cluster.keys("k")?, ["key"]);
    let before = cluster.revision()?;

    cluster.restart_empty()?;
    assert_eq!(value(&cluster, "key")?, "");
    assert!(cluster.revision()? < before);
    Ok(())
}

#[test]
fn every_write_is_one_entry_of_the_log() -> Outcome {
    let cluster = EtcdCluster::single()?;
    let metrics = || cluster.nodes()[0].metrics();
    let before = metrics()?;
    for _ in 0..3 {
        put(&cluster, "key", "1")?;
    }
    value(&cluster, "key")?;
    let after = metrics()?;
    assert_eq!(after.raft_entries() - before.raft_entries(), 3.0);
    assert!(after.messages() > before.messages());
    Ok(())
}

#[test]
fn a_leader_that_is_killed_or_stopped_is_replaced_and_comes_back() -> Outcome {
    let cluster = EtcdCluster::of_three()?;
    put(&cluster, "key", "1")?;
    let first = cluster.leader()?;
    cluster.nodes()[first].kill()?;
    let second = cluster.leader()?;
    assert_ne!(first, second);
    assert_eq!(value(&cluster, "key")?, "1");

    cluster.start_node(first)?;
    cluster.nodes()[second].stop()?;
    let third = cluster.leader()?;
    assert_ne!(second, third);
    put(&cluster, "key", "2")?;
    cluster.nodes()[second].resume()?;
    assert_eq!(value(&cluster, "key")?, "2");
    Ok(())
}

#[test]
fn a_snapshot_takes_a_cluster_back() -> Outcome {
    let cluster = EtcdCluster::of_three()?;
    put(&cluster, "key", "1")?;
    cluster.save_snapshot()?;
    put(&cluster, "key", "2")?;
    let later = cluster.revision()?;
    cluster.restore_snapshot()?;
    assert_eq!(value(&cluster, "key")?, "1");
    assert!(cluster.revision()? < later);
    Ok(())
}

#[test]
fn a_full_server_refuses_until_room_is_made() -> Outcome {
    let options = EtcdOptions::default().with_quota(4 * 1024 * 1024);
    let cluster = EtcdCluster::start_with(1, options)?;
    cluster.fill()?;
    let refused = cluster.control(&["put", "key", "1"]).unwrap_err();
    assert!(refused.message().contains("space exceeded"), "{refused}");
    cluster.restart()?;
    assert!(cluster.control(&["put", "key", "1"]).is_err());

    cluster.make_room()?;
    put(&cluster, "key", "1")?;
    Ok(())
}

#[test]
fn users_may_do_what_they_were_granted_and_no_more() -> Outcome {
    let options = EtcdOptions::default()
        .with_root_password("secret")
        .with_user("worker", "hidden", "locks/");
    let cluster = EtcdCluster::start_with(1, options)?;
    put(&cluster, "elsewhere", "1")?;
    let as_worker = |arguments: &[&str]| {
        let user = ["--user", "worker:hidden"];
        cluster.control_as_given(&[arguments, &user].concat())
    };
    as_worker(&["put", "locks/a", "1"])?;
    let denied = as_worker(&["put", "elsewhere", "2"]).unwrap_err();
    assert!(denied.message().contains("permission denied"), "{denied}");
    assert!(cluster.control_as_given(&["get", "locks/a"]).is_err());
    Ok(())
}

#[test]
fn without_a_certificate_nobody_gets_in() -> Outcome {
    let options = EtcdOptions::default().with_tls();
    let cluster = EtcdCluster::start_with(1, options)?;
    put(&cluster, "key", "1")?;
    assert!(cluster.endpoints()[0].starts_with("https://localhost:"));
    let certificates = cluster.certificates()?;
    let mut stranger = std::process::Command::new(etcd::CONTROL_PROGRAM.find()?);
    stranger
        .env("ETCDCTL_API", "3")
        .args(["get", "key", "--dial-timeout=300ms", "--command-timeout=1s"])
        .args(["--endpoints", &cluster.endpoints()[0], "--cacert"])
        .arg(certificates.authority());
    assert!(!stranger.output()?.status.success());
    Ok(())
}

#[test]
fn compaction_forgets_history_and_revoking_ends_keys() -> Outcome {
    let cluster = EtcdCluster::single()?;
    put(&cluster, "key", "1")?;
    let old = format!("--rev={}", cluster.revision()?);
    put(&cluster, "key", "2")?;
    assert!(cluster.control(&["get", "key", &old]).is_ok());
    cluster.compact()?;
    let gone = cluster.control(&["get", "key", &old]).unwrap_err();
    assert!(gone.message().contains("compacted"), "{gone}");

    cluster.control(&["lease", "grant", "600"])?;
    let lease = cluster.leases()?.remove(0);
    cluster.control(&["put", "leased", "1", "--lease", &lease])?;
    cluster.revoke(&lease)?;
    assert_eq!(value(&cluster, "leased")?, "");
    Ok(())
}
