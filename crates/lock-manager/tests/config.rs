//! Every message of a bad configuration, from real files and environments.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use figment::Jail;
use lock_manager::{BackendKind, Config, ErrorKind, Pool, Result};

/// Runs `test` in an empty directory with an environment of its own.
#[expect(clippy::result_large_err, reason = "the error type is the library's")]
fn in_jail(test: impl FnOnce(&mut Jail)) {
    Jail::expect_with(|jail| {
        test(jail);
        Ok(())
    });
}

/// The message of a file that must be refused.
fn refusal(jail: &mut Jail, file: &str, text: &str) -> String {
    jail.create_file(file, text).unwrap();
    message(Config::from_file(file))
}

fn message(outcome: Result<Config>) -> String {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    error.message().to_owned()
}

#[test]
fn a_bad_setting_is_told_with_file_key_reason_and_what_to_write() {
    let every_setting = "pool, worker_processes, hosts, backend, namespace, fencing_epoch, acquire, \
                         deadlock, routes, threading, file, sqlite, redis, etcd";
    let unknown = format!(
        "in locks.toml, `backedn`: there is no setting `backedn` (did you mean `backend`?); the \
         settings here are {every_setting}"
    );
    in_jail(|jail| {
        for (text, expected) in [
            ("backedn = \"redis\"", &*unknown),
            (
                "pool = \"prefrok\"",
                "in locks.toml, `pool`: `prefrok` is none of the choices (did you mean `prefork`?); \
                 write one of prefork, processes, threads, gevent, eventlet, solo, custom",
            ),
            (
                "pool = \"fibers\"",
                "in locks.toml, `pool`: `fibers` is none of the choices; write one of prefork, \
                 processes, threads, gevent, eventlet, solo, custom",
            ),
            (
                "[acquire]\nwait_limit = 30",
                "in locks.toml, `acquire.wait_limit`: found the number 30, write a duration such as \
                 \"30s\", \"5m\" or \"250ms\"",
            ),
            (
                "[acquire]\nttl = \"soon\"",
                "in locks.toml, `acquire.ttl`: found `soon`, write a duration such as \"30s\", \"5m\" \
                 or \"250ms\"",
            ),
            (
                "[acquire]\nttl = \"0s\"",
                "in locks.toml, `acquire.ttl`: zero makes no sense here; write a longer duration, or \
                 leave the setting out",
            ),
            (
                "[acquire]\nwait_limt = \"30s\"",
                "in locks.toml, `acquire.wait_limt`: there is no setting `wait_limt` (did you mean \
                 `wait_limit`?); the settings here are wait_limit, ttl, priority, max_hold, \
                 lock_delay",
            ),
            (
                "[acquire]\npriority = 200",
                "in locks.toml, `acquire.priority`: found the number 200, write a whole number from \
                 -128 to 127",
            ),
            (
                "hosts = 0",
                "in locks.toml, `hosts`: found the number 0, write a whole number from 1 on",
            ),
            (
                "worker_processes = \"many\"",
                "in locks.toml, `worker_processes`: found `many`, write a whole number from 1 on",
            ),
            (
                "fencing_epoch = -1",
                "in locks.toml, `fencing_epoch`: found the number -1, write a whole number from 0 on",
            ),
            (
                "namespace = 3",
                "in locks.toml, `namespace`: found the number 3, write text in quotes",
            ),
            (
                "namespace = \"Shop A\"",
                "in locks.toml, `namespace`: `Shop A` is no namespace; write at most 64 of a-z, 0-9, \
                 `.`, `_`, `-`, starting with a letter or digit",
            ),
            (
                "[deadlock]\nreport_held_longer_than = \"30s\"",
                "in locks.toml, `deadlock`: `report_held_longer_than` does nothing without `detect`; \
                 write `detect = true`",
            ),
            (
                "acquire = true",
                "in locks.toml, `acquire`: found `true`, write a table",
            ),
            (
                "[threading]\nshards = 1",
                "in locks.toml, `threading.shards`: there is no setting `shards`; nothing can be set \
                 here",
            ),
            (
                "[default]\npool = \"solo\"",
                "in locks.toml, `default`: `default` looks like a profile, but none was chosen; \
                 choose one with `Config::loader().profile(..)`, or move its settings to the top",
            ),
            (
                "hosts = 1\n]",
                "in locks.toml: TOML parse error at line 2, column 1, invalid key",
            ),
        ] {
            assert_eq!(refusal(jail, "locks.toml", text), expected);
        }
    });
}

#[test]
fn a_bad_route_is_told_by_its_number() {
    in_jail(|jail| {
        for (text, expected) in [
            (
                "[[routes]]\npattern = \"a*\"",
                "`routes.0`: `backend` is missing; write it",
            ),
            (
                "[[routes]]\npatern = \"a*\"\nbackend = \"threading\"",
                "`routes.0.patern`: there is no setting `patern` (did you mean `pattern`?); the \
                 settings here are pattern, backend",
            ),
            (
                "[[routes]]\npattern = \"\"\nbackend = \"threading\"",
                "`routes`, rule 1: pattern `` is empty; write what the names look like, such as \
                 `schema_*`",
            ),
            (
                "routes = [{ pattern = \"*\", backend = \"file\" }, { pattern = \"a\", backend = \"x\" }]",
                "`routes`, rule 2: `a` is never reached, because rule 1 (`*`) stands before it and \
                 takes every such name; move it up, or remove it",
            ),
        ] {
            let expected = format!("in locks.toml, {expected}");
            assert_eq!(refusal(jail, "locks.toml", text), expected);
        }
    });
}

#[test]
fn every_format_reads_the_same_and_tells_where_it_is_broken() {
    in_jail(|jail| {
        let toml = "pool = \"threads\"\nhosts = 1\n[acquire]\nwait_limit = \"1m 30s\"";
        let yaml = "pool: threads\nhosts: 1\nacquire: { wait_limit: 1m 30s }";
        let json = r#"{"pool": "threads", "hosts": 1, "acquire": {"wait_limit": "1m 30s"}}"#;
        for (file, text) in [
            ("a.toml", toml),
            ("a.yaml", yaml),
            ("a.yml", yaml),
            ("a.json", json),
        ] {
            jail.create_file(file, text).unwrap();
            let config = Config::from_file(file).unwrap();
            assert_eq!(config.pool, Some(Pool::Threads), "{file}");
            assert_eq!(config.acquire.wait_limit.unwrap().as_secs(), 90, "{file}");
        }
        let broken = refusal(jail, "b.json", "{\"hosts\": ");
        assert_eq!(
            broken,
            "in b.json: EOF while parsing a value at line 1 column 10"
        );
        let broken = refusal(jail, "b.yaml", "hosts: [1\nx: ");
        assert!(broken.starts_with("in b.yaml: "), "{broken}");
        assert!(broken.contains("line 2 column 2"), "{broken}");
        let told = refusal(jail, "locks.ini", "");
        assert!(
            told.contains("name the file .toml, .yaml or .json"),
            "{told}"
        );
        let told = message(Config::from_file("missing.toml"));
        assert!(
            told.starts_with("in missing.toml: cannot be read"),
            "{told}"
        );
    });
}

#[test]
fn the_environment_is_read_only_when_asked_and_wins() {
    in_jail(|jail| {
        jail.create_file("locks.toml", "pool = \"solo\"\nnamespace = \"shop\"")
            .unwrap();
        jail.set_env("LOCK_POOL", "threads");
        jail.set_env("LOCK_ACQUIRE__WAIT_LIMIT", "5s");
        jail.set_env("LOCK_CONFIG", "locks.toml");
        // What `lockctl run` tells its command is no setting.
        jail.set_env("LOCK_KEY", "nightly");
        jail.set_env("LOCK_FENCING_TOKEN", "4096");
        let config = Config::from_file("locks.toml").unwrap();
        assert_eq!(config.pool, Some(Pool::Solo));
        assert_eq!(config.acquire.wait_limit, None);
        let with_env = Config::loader().file("locks.toml").with_env();
        let config = with_env.load().unwrap();
        assert_eq!(config.pool, Some(Pool::Threads));
        assert_eq!(config.acquire.wait_limit.unwrap().as_secs(), 5);
        assert_eq!(config.namespace, "shop");

        jail.set_env("LOCK_ACQUIRE__TTL", "often");
        assert_eq!(
            message(with_env.load()),
            "environment variable `LOCK_ACQUIRE__TTL`: found `often`, write a duration such as \
             \"30s\", \"5m\" or \"250ms\""
        );
        jail.set_env("LOCK_ACQUIRE__TTL", "30s");
        jail.set_env("LOCK_POLO", "x");
        let told = message(with_env.load());
        assert!(
            told.starts_with("environment variable `LOCK_POLO`: there is no setting `polo`"),
            "{told}"
        );
        assert!(told.contains("did you mean `pool`?"), "{told}");
    });
}

#[test]
fn a_profile_replaces_the_default_and_the_environment_both() {
    in_jail(|jail| {
        let text = "[default]\nnamespace = \"shop\"\nhosts = 1\n[production]\nhosts = 3";
        jail.create_file("locks.toml", text).unwrap();
        let loader = Config::loader().file("locks.toml");
        let hosts = |config: Config| config.hosts.unwrap().get();
        let production = loader.clone().profile("production").load().unwrap();
        assert_eq!(production.namespace, "shop");
        assert_eq!(hosts(production), 3);
        assert_eq!(hosts(loader.clone().profile("default").load().unwrap()), 1);
        jail.set_env("LOCK_HOSTS", "7");
        let production = loader.clone().profile("production").with_env();
        assert_eq!(hosts(production.load().unwrap()), 7);

        assert_eq!(
            message(loader.clone().profile("prodution").load()),
            "in locks.toml: there is no profile `prodution` (did you mean `production`?); write a \
             table `[prodution]` (there: default, production)"
        );
        jail.create_file("locks.toml", "pool = \"solo\"\n[default]\nhosts = 1")
            .unwrap();
        let told = message(loader.profile("default").load());
        assert!(told.contains("one table per profile"), "{told}");
    });
}

#[test]
fn later_files_replace_earlier_ones() {
    in_jail(|jail| {
        jail.create_file("a.toml", "hosts = 1\n[acquire]\nttl = \"9s\"")
            .unwrap();
        jail.create_file("b.yaml", "hosts: 2\nacquire: { priority: 5 }")
            .unwrap();
        let config = Config::loader()
            .file("a.toml")
            .file("b.yaml")
            .load()
            .unwrap();
        assert_eq!(config.hosts.unwrap().get(), 2);
        assert_eq!(config.acquire.ttl.unwrap().as_secs(), 9);
        assert_eq!(config.acquire.priority, 5);
    });
}

#[test]
fn a_configuration_is_a_provider_of_itself() {
    in_jail(|jail| {
        let text = "pool = \"prefork\"\nhosts = 2\nbackend = \"redis\"\n[acquire]\nttl = \"90s\"\n\
                    [redis]\nurl = \"redis://cache\"\n[[routes]]\npattern = \"a*\"\nbackend = \"etcd\"";
        jail.create_file("locks.toml", text).unwrap();
        let config = Config::from_file("locks.toml").unwrap();
        let again = Config::extract(&config).unwrap();
        assert_eq!(again.pool, config.pool);
        assert_eq!(again.hosts, config.hosts);
        assert_eq!(again.backend, config.backend);
        assert_eq!(again.acquire, config.acquire);
        assert_eq!(again.routes, config.routes);
        assert!(again.has_section(BackendKind::Redis));
        assert!(!again.has_section(BackendKind::Etcd));
    });
}

#[test]
fn secrets_are_in_no_error_and_no_debug_output() {
    in_jail(|jail| {
        let text = "[etcd]\npassword = \"hunter2\"\nendpoints = [\"https://me:hunter2@x\"]";
        jail.create_file("locks.toml", text).unwrap();
        let debug = format!("{:?}", Config::from_file("locks.toml").unwrap());
        assert!(!debug.contains("hunter2"), "{debug}");
        let told = refusal(jail, "locks.toml", "etcd = \"https://me:hunter2@x\"");
        assert_eq!(
            told,
            "in locks.toml, `etcd`: found a value that is not shown here, write a table"
        );
        let broken = refusal(jail, "locks.toml", "[etcd]\npassword = \"hunter2\" x");
        assert!(!broken.contains("hunter2"), "{broken}");
        jail.create_file("locks.toml", "password = \"hunter2\"")
            .unwrap();
        let told = message(
            Config::loader()
                .file("locks.toml")
                .profile("default")
                .load(),
        );
        assert!(!told.contains("hunter2"), "{told}");
    });
}
