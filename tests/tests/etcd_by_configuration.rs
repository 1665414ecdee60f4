//! An etcd cluster, chosen and reached by configuration alone.

use lock_manager::{Config, LockManager, Scope};
use lock_testkit::Outcome;
use lock_testkit::services::etcd::{EtcdCluster, EtcdOptions};

fn manager(text: &str) -> lock_manager::Result<LockManager> {
    let directory = tempfile::tempdir().expect("a directory for the configuration");
    let path = directory.path().join("locks.toml");
    std::fs::write(&path, text).expect("a file for the configuration");
    LockManager::new(Config::from_file(&path)?)
}

#[test]
fn a_prefork_pool_of_several_hosts_gets_the_cluster_with_its_user_and_certificates() -> Outcome {
    let options = EtcdOptions::default()
        .with_tls()
        .with_root_password("root secret")
        .with_user("locker", "its secret", "shop/");
    let cluster = EtcdCluster::start_with(1, options)?;
    let certificates = cluster.certificates()?;
    let (certificate, key) = certificates.client();
    let text = format!(
        "pool = \"prefork\"\nhosts = 3\nnamespace = \"shop\"\n\
         [etcd]\nendpoints = [{:?}]\nprefix = \"shop/locks\"\n\
         user = \"locker\"\npassword = \"its secret\"\n\
         tls = {{ ca = {:?}, certificate = {certificate:?}, key = {key:?} }}\n",
        cluster.endpoints()[0],
        certificates.authority(),
    );
    let (locks, others) = (manager(&text)?, manager(&text)?);
    let guard = locks.lock("orders")?.acquire().wait()?;
    let lock = locks.lock("orders")?;
    assert_eq!(lock.backend().capabilities().scope, Scope::Network);
    assert!(others.lock("orders")?.try_acquire().wait()?.is_none());
    guard.release_blocking()?;
    assert!(others.lock("orders")?.try_acquire().wait()?.is_some());

    let wrong = manager(&text.replace("its secret", "another"))?;
    let refused = wrong
        .lock("orders")?
        .acquire()
        .wait()
        .expect_err("a wrong password");
    assert_eq!(refused.kind(), lock_manager::ErrorKind::PermissionDenied);
    assert!(!refused.to_string().contains("another"), "{refused}");
    Ok(())
}
