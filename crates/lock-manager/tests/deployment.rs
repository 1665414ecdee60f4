//! From a configuration to a backend, or to a refusal that says what to write.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU32;
use std::sync::Arc;

use figment::Jail;
use lock_manager::{BackendKind, Config, Error, ErrorKind, LockManager, Pool, Route, Scope};
use lock_threading::ThreadingBackend;

fn from_text(text: &str) -> Result<LockManager, Error> {
    let mut outcome = None;
    in_jail(|jail| {
        jail.create_file("locks.toml", text).unwrap();
        outcome = Some(LockManager::from_file("locks.toml"));
    });
    outcome.unwrap()
}

#[expect(clippy::result_large_err, reason = "the error type is the library's")]
fn in_jail(test: impl FnOnce(&mut Jail)) {
    Jail::expect_with(|jail| {
        test(jail);
        Ok(())
    });
}

fn refusal(text: &str) -> Error {
    from_text(text).unwrap_err()
}

#[test]
fn no_configuration_is_in_process() {
    let manager = LockManager::new(Config::default()).unwrap();
    assert_eq!(manager.default_backend(), "threading");
    assert!(manager.backends().contains(&"threading"));
    let guard = manager.lock("a").unwrap().acquire().wait().unwrap();
    assert!(guard.fencing_token().is_some());
}

#[test]
fn a_backend_that_does_not_exist_is_refused_where_it_is_named() {
    let error = refusal("backend = \"reddis\"");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let start = "in locks.toml, `backend`: `reddis` is no backend (did you mean `redis`?); write one \
                 of threading";
    assert!(error.message().starts_with(start), "{error}");
    let error = refusal("[[routes]]\npattern = \"a*\"\nbackend = \"flie\"");
    let start = "in locks.toml, `routes`, rule 1: `flie` is no backend (did you mean `file`?)";
    assert!(error.message().starts_with(start), "{error}");
    let manager = LockManager::new(Config::default()).unwrap();
    let error = manager.create_lock("a", "thread").unwrap_err();
    assert!(
        error
            .message()
            .starts_with("lock `a`: `thread` is no backend"),
        "{error}"
    );
}

#[test]
fn a_backend_that_this_build_lacks_is_refused_with_what_to_do() {
    for kind in BackendKind::ALL {
        if kind.is_available() {
            continue;
        }
        for text in [
            format!("backend = \"{kind}\""),
            format!("[{kind}]\nanything = 1"),
            format!("[[routes]]\npattern = \"a\"\nbackend = \"{kind}\""),
        ] {
            let error = refusal(&text);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert_eq!(error.backend(), Some(kind.name()));
            let message = error.message();
            assert!(message.starts_with("in locks.toml, `"), "{message}");
            assert!(
                message.contains("enable feature `") || message.contains("not available in this"),
                "{message}"
            );
            assert!(message.contains("(available: "), "{message}");
        }
    }
}

#[test]
fn a_section_of_a_backend_that_is_not_used_does_no_harm() {
    let missing = BackendKind::ALL
        .into_iter()
        .find(|kind| !kind.is_available());
    let Some(missing) = missing else { return };
    let manager = from_text(&format!("pool = \"solo\"\n[{missing}]\nanything = 1")).unwrap();
    assert_eq!(manager.default_backend(), "threading");
}

#[test]
fn an_in_process_lock_under_prefork_is_refused() {
    for text in [
        "pool = \"prefork\"\nbackend = \"threading\"",
        "pool = \"prefork\"\nhosts = 1\nbackend = \"threading\"",
        "pool = \"threads\"\nworker_processes = 2\nbackend = \"threading\"",
        "hosts = 2\nbackend = \"threading\"",
    ] {
        let error = refusal(text);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let message = error.message();
        let start = "in locks.toml, `backend`: backend `threading` excludes only the tasks and \
                     threads of one process, but";
        assert!(message.starts_with(start), "{message}");
        assert!(message.contains("because"), "{message}");
        let advice = [
            "write `backend = ",
            "plug one in with `LockManager::builder()`",
        ];
        let advised = advice.iter().any(|advice| message.contains(advice));
        assert!(advised, "{message}");
    }
    let unstated = refusal("pool = \"prefork\"\nbackend = \"threading\"");
    assert!(
        unstated.message().contains("write `hosts = 1`"),
        "{unstated}"
    );
    let unconfigured = refusal("pool = \"prefork\"");
    assert!(
        unconfigured.message().contains("only `threading` is there"),
        "{unconfigured}"
    );
}

#[test]
fn a_route_or_a_lock_on_too_narrow_a_backend_is_refused() {
    let wide = || Arc::new(WiderThanItIs(ThreadingBackend::new()));
    let mut config = Config::default();
    config.pool = Some(Pool::Prefork);
    let manager = LockManager::builder()
        .config(config.clone())
        .backend("wide", wide())
        .build()
        .unwrap();
    assert_eq!(manager.default_backend(), "wide");
    let error = manager.create_lock("a", "threading").unwrap_err();
    assert!(
        error
            .message()
            .starts_with("lock `a`: backend `threading` excludes only"),
        "{error}"
    );

    config.routes = vec![Route::new("tmp_*", "threading")];
    let error = LockManager::builder()
        .config(config)
        .backend("wide", wide())
        .build()
        .unwrap_err();
    assert!(
        error
            .message()
            .starts_with("`routes`, rule 1: backend `threading`"),
        "{error}"
    );
}

#[test]
fn routes_choose_the_backend_and_the_first_match_wins() {
    let mut config = Config::default();
    config.backend = Some("threading".into());
    config.routes = vec![
        Route::new("schema_users", "threading"),
        Route::new("schema_*", "second"),
    ];
    let manager = LockManager::builder()
        .config(config)
        .backend("second", Arc::new(ThreadingBackend::new()))
        .build()
        .unwrap();
    let names = ["other", "schema_users", "schema_orders"];
    let locks: Vec<_> = names
        .iter()
        .map(|name| manager.lock(name).unwrap())
        .collect();
    let listed = manager.list_locks();
    assert_eq!(listed["other"], "threading");
    assert_eq!(listed["schema_users"], "threading");
    assert_eq!(listed["schema_orders"], "second");
    drop(locks);
}

#[test]
fn the_namespace_the_epoch_and_the_defaults_reach_the_locks() {
    let manager = from_text(
        "namespace = \"shop\"\nfencing_epoch = 7\n[acquire]\nwait_limit = \"0s\"\nttl = \"9s\"",
    )
    .unwrap();
    let lock = manager.lock("a").unwrap();
    assert_eq!(lock.key().qualified(), "shop:a");
    // The TTL is left out where there is no lease; else every acquire would be refused.
    let guard = lock.acquire().wait().unwrap();
    assert_eq!(guard.fencing_token().unwrap().epoch(), 7);
    assert_eq!(
        lock.acquire().wait().unwrap_err().kind(),
        ErrorKind::Timeout
    );
    let elsewhere = lock_manager::LockKey::new("a")
        .unwrap()
        .in_namespace("bank")
        .unwrap();
    assert_eq!(manager.lock_key(&elsewhere).unwrap().key(), &elsewhere);
}

use wide::WiderThanItIs;

/// A backend that declares a wider scope: what is tested is that the declaration counts.
mod wide {
    use async_trait::async_trait;
    use lock_core::{
        Capabilities, Change, Grant, InspectPage, InspectQuery, LockBackend, LockKey, OwnerToken,
        Released, Renewal, Renewed, Request, Result, Scope, Step,
    };
    use lock_threading::ThreadingBackend;

    #[derive(Debug)]
    pub(super) struct WiderThanItIs(pub(super) ThreadingBackend);

    #[async_trait]
    impl LockBackend for WiderThanItIs {
        fn capabilities(&self) -> Capabilities {
            let mut capabilities = self.0.capabilities();
            capabilities.scope = Scope::Network;
            capabilities
        }
        fn acquire(&self, key: &LockKey, request: &Request) -> Step<Result<Option<Grant>>> {
            self.0.acquire(key, request)
        }
        fn release(&self, key: &LockKey, grant: &Grant) -> Step<Result<Released>> {
            self.0.release(key, grant)
        }
        fn abandon(&self, key: &LockKey, attempt: OwnerToken) {
            self.0.abandon(key, attempt);
        }
        fn alter(&self, key: &LockKey, grant: &Grant, change: Change) -> Step<Result<Grant>> {
            self.0.alter(key, grant, change)
        }
        async fn renew(&self, batch: &[Renewal]) -> Result<Vec<Renewed>> {
            self.0.renew(batch).await
        }
        fn acquire_many(&self, wanted: &[(LockKey, Request)]) -> Step<Result<Option<Vec<Grant>>>> {
            self.0.acquire_many(wanted)
        }
        async fn inspect(&self, query: InspectQuery) -> Result<InspectPage> {
            self.0.inspect(query).await
        }
        async fn break_lock(&self, key: &LockKey, attempt: Option<OwnerToken>) -> Result<usize> {
            self.0.break_lock(key, attempt).await
        }
        async fn close(&self) -> Result<()> {
            self.0.close().await
        }
    }
}

#[test]
fn what_a_deployment_needs_can_be_asked() {
    let mut config = Config::default();
    assert_eq!(config.need().scope(), Scope::Process);
    config.pool = Some(Pool::Prefork);
    let need = config.need();
    assert_eq!(need.scope(), Scope::Network);
    assert!(
        need.why().contains("`hosts` is not stated"),
        "{}",
        need.why()
    );
    config.hosts = NonZeroU32::new(1);
    assert_eq!(config.need().scope(), Scope::Host);
}
