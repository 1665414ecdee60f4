//! Passwords and certificates.

use std::time::Duration;

use lock_core::ErrorKind;
use lock_etcd::{EtcdConfig, EtcdTls, Secret};
use lock_testkit::Outcome;
use lock_testkit::services::Certificates;
use lock_testkit::services::etcd::{EtcdCluster, EtcdOptions};

use crate::support::{Client, patient};

fn as_user(cluster: &EtcdCluster, user: &str, password: &str) -> EtcdConfig {
    let mut config = patient(cluster.endpoints());
    config.user = Some(user.to_owned());
    config.password = Some(Secret::new(password));
    config
}

#[tokio::test]
async fn who_may_not_enter_is_told_so_at_once() -> Outcome {
    let options = EtcdOptions::default()
        .with_root_password("secret")
        .with_user("worker", "hidden", "locks/");
    let cluster = EtcdCluster::start_with(1, options)?;

    let wrong = Client::with(as_user(&cluster, "worker", "guess"))?;
    let (kind, said) = wrong.refusal("a").await?;
    assert_eq!(kind, ErrorKind::PermissionDenied, "{said}");
    assert!(
        said.contains("password") && !said.contains("guess"),
        "{said}"
    );

    let nobody = Client::of(&cluster)?;
    let (kind, said) = nobody.refusal("a").await?;
    assert_eq!(kind, ErrorKind::PermissionDenied, "{said}");

    let mut elsewhere = as_user(&cluster, "worker", "hidden");
    elsewhere.prefix = "forbidden".to_owned();
    let (kind, said) = Client::with(elsewhere)?.refusal("a").await?;
    assert_eq!(kind, ErrorKind::PermissionDenied, "{said}");

    // The control: with the right password and prefix it is granted.
    let right = Client::with(as_user(&cluster, "worker", "hidden"))?;
    assert!(right.refusal("a").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_login_that_the_server_forgot_is_made_again() -> Outcome {
    let options = EtcdOptions::default()
        .with_root_password("secret")
        .with_user("worker", "hidden", "locks/");
    let cluster = EtcdCluster::start_with(1, options)?;
    let client = Client::with(as_user(&cluster, "worker", "hidden"))?;
    let held = client.acquire("a").await?;
    // Logins live in the server's memory only.
    cluster.restart()?;
    client.acquire("b").await?.release().await?;
    assert!(held.is_held());
    // The control: who is no user any more cannot log in again.
    cluster.control(&["user", "delete", "worker"])?;
    cluster.restart()?;
    let (kind, said) = client.refusal("c").await?;
    assert_eq!(kind, ErrorKind::PermissionDenied, "{said}");
    Ok(())
}

fn with_files(
    cluster: &EtcdCluster,
    authority: &Certificates,
    own: Option<&Certificates>,
) -> EtcdConfig {
    let mut tls = EtcdTls::default();
    tls.ca = Some(authority.authority());
    if let Some(own) = own {
        let (certificate, key) = own.client();
        tls.certificate = Some(certificate);
        tls.key = Some(key);
    }
    let mut config = EtcdConfig::with_endpoints(cluster.endpoints());
    config.tls = tls;
    config.patience = Duration::from_millis(300);
    config
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_in_an_error_that_says_so() -> Outcome {
    let cluster = EtcdCluster::start_with(1, EtcdOptions::default().with_tls())?;
    let ours = cluster.certificates()?;
    let folder = tempfile::tempdir()?;
    let others = &Certificates::create(folder.path())?;

    // We do not trust the server, it does not trust us, it does not know us.
    for (authority, own) in [(others, Some(ours)), (ours, Some(others)), (ours, None)] {
        let client = Client::with(with_files(&cluster, authority, own))?;
        let (kind, said) = client.refusal("a").await?;
        assert_eq!(kind, ErrorKind::Unavailable, "{said}");
        let said = said.to_lowercase();
        assert!(
            said.contains("certificate") || said.contains("unknownissuer"),
            "{said}"
        );
    }

    let mut missing = with_files(&cluster, ours, None);
    missing.tls.ca = Some(folder.path().join("nowhere.pem"));
    assert!(Client::with(missing).is_err());

    // The control: with certificates of one authority it is granted.
    let client = Client::with(with_files(&cluster, ours, Some(ours)))?;
    assert!(client.refusal("a").await.is_err());
    Ok(())
}
