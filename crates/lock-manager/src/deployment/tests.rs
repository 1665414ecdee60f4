use super::*;

const THREADING: Candidate<'static> = Candidate {
    name: "threading",
    scope: Scope::Process,
};
const FILE: Candidate<'static> = Candidate {
    name: "file",
    scope: Scope::Host,
};
const SQLITE: Candidate<'static> = Candidate {
    name: "sqlite",
    scope: Scope::Host,
};
const REDIS: Candidate<'static> = Candidate {
    name: "redis",
    scope: Scope::Network,
};
const ETCD: Candidate<'static> = Candidate {
    name: "etcd",
    scope: Scope::Network,
};

fn deployment(
    pool: impl Into<Option<Pool>>,
    worker_processes: impl Into<Option<u32>>,
    hosts: impl Into<Option<u32>>,
) -> Deployment {
    let number = |number: Option<u32>| number.map(|number| NonZeroU32::new(number).unwrap());
    Deployment {
        pool: pool.into(),
        worker_processes: number(worker_processes.into()),
        hosts: number(hosts.into()),
    }
}

#[test]
fn every_pool_and_number_needs_what_the_table_says() {
    use Scope::{Host, Network, Process};
    // For each pool: what is needed by (worker_processes, hosts), unstated, one or several.
    let numbers = [
        (None, None),
        (Some(1), None),
        (Some(4), None),
        (None, Some(1)),
        (Some(1), Some(1)),
        (Some(4), Some(1)),
        (None, Some(2)),
        (Some(1), Some(2)),
        (Some(4), Some(2)),
    ];
    let forking = [
        Network, Network, Network, Host, Host, Host, Network, Network, Network,
    ];
    let in_process = [
        Process, Process, Host, Process, Process, Host, Network, Network, Network,
    ];
    let custom = [
        Network, Network, Network, Network, Process, Host, Network, Network, Network,
    ];
    let table = [
        (Some(Pool::Prefork), forking),
        (Some(Pool::Processes), forking),
        (Some(Pool::Threads), in_process),
        (Some(Pool::Gevent), in_process),
        (Some(Pool::Eventlet), in_process),
        (Some(Pool::Solo), in_process),
        (Some(Pool::Custom), custom),
        (None, in_process),
    ];
    assert_eq!(table.len(), Pool::ALL.len() + 1);
    for (pool, row) in table {
        for ((worker_processes, hosts), scope) in numbers.into_iter().zip(row) {
            let need = deployment(pool, worker_processes, hosts).need();
            assert_eq!(need.scope, scope, "{pool:?} {worker_processes:?} {hosts:?}");
        }
    }
}

#[test]
fn the_narrowest_configured_backend_that_reaches_is_chosen() {
    for (deployment, configured, expected) in [
        (deployment(Pool::Solo, None, None), vec![], "threading"),
        (deployment(Pool::Solo, None, None), vec![REDIS], "threading"),
        (
            deployment(Pool::Threads, None, None),
            vec![FILE, REDIS],
            "threading",
        ),
        (
            deployment(Pool::Threads, 2, None),
            vec![FILE, REDIS],
            "file",
        ),
        (deployment(Pool::Gevent, 2, 2), vec![FILE, REDIS], "redis"),
        (
            deployment(Pool::Prefork, None, None),
            vec![FILE, REDIS],
            "redis",
        ),
        (
            deployment(Pool::Prefork, None, 1),
            vec![FILE, REDIS],
            "file",
        ),
        (
            deployment(Pool::Prefork, None, 1),
            vec![SQLITE, FILE],
            "sqlite",
        ),
        (deployment(Pool::Prefork, None, 1), vec![REDIS], "redis"),
        (deployment(Pool::Processes, 4, 3), vec![ETCD], "etcd"),
        (deployment(Pool::Custom, 1, 1), vec![REDIS], "threading"),
        (
            deployment(Pool::Custom, 1, None),
            vec![FILE, REDIS, ETCD],
            "redis",
        ),
        (deployment(None, None, None), vec![], "threading"),
        (deployment(None, 2, None), vec![FILE], "file"),
    ] {
        let chosen = deployment.choose(&configured, Some(THREADING)).unwrap();
        assert_eq!(chosen.name, expected, "{deployment:?} with {configured:?}");
    }
}

#[test]
fn without_a_pool_the_configured_backend_that_reaches_farthest_is_chosen() {
    let unknown = deployment(None, None, None);
    for (configured, expected) in [
        (vec![FILE], "file"),
        (vec![FILE, REDIS], "redis"),
        (vec![REDIS, ETCD], "redis"),
        (vec![SQLITE, FILE], "sqlite"),
    ] {
        let chosen = unknown.choose(&configured, Some(THREADING)).unwrap();
        assert_eq!(chosen.name, expected, "{configured:?}");
    }
}

/// What to write for a backend that reaches so far, by what this build has.
fn advice(scope: Scope) -> String {
    let kinds = BackendKind::ALL.into_iter();
    let reaching = kinds.filter(|kind| kind.is_available() && kind.scope() >= scope);
    let written: Vec<String> = reaching
        .map(|kind| format!("`backend = \"{kind}\"`"))
        .collect();
    match written.as_slice() {
        [] => "no backend of this build excludes processes on other hosts; plug one in with \
               `LockManager::builder()`"
            .to_owned(),
        written => format!("write {}", written.join(" or ")),
    }
}

#[test]
fn a_backend_that_does_not_reach_is_refused_with_what_to_write() {
    for (deployment, backend, expected) in [
        (
            deployment(Pool::Prefork, 4, 1),
            THREADING,
            "`backend`: backend `threading` excludes only the tasks and threads of one process, but \
             a lock must exclude the processes of one host because pool `prefork` runs its workers \
             as processes; {host}",
        ),
        (
            deployment(Pool::Prefork, None, None),
            FILE,
            "`backend`: backend `file` excludes only the processes of one host, but a lock must \
             exclude processes on other hosts because pool `prefork` runs several processes and \
             `hosts` is not stated; {network}; or if all of them \
             run on one host, write `hosts = 1`",
        ),
        (
            deployment(Pool::Threads, 2, None),
            THREADING,
            "`backend`: backend `threading` excludes only the tasks and threads of one process, but \
             a lock must exclude the processes of one host because `worker_processes` is 2; {host}",
        ),
        (
            deployment(Pool::Solo, None, 2),
            FILE,
            "`backend`: backend `file` excludes only the processes of one host, but a lock must \
             exclude processes on other hosts because `hosts` is 2; {network}",
        ),
        (
            deployment(Pool::Custom, 1, None),
            THREADING,
            "`backend`: backend `threading` excludes only the tasks and threads of one process, but \
             a lock must exclude processes on other hosts because pool `custom` runs on an unstated \
             number of hosts; {network}; or state \
             `worker_processes` and `hosts`",
        ),
    ] {
        let error = deployment.check("`backend`", backend).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let expected = expected
            .replace("{host}", &advice(Scope::Host))
            .replace("{network}", &advice(Scope::Network));
        assert_eq!(error.message(), expected);
    }
    for (deployment, backend) in [
        (deployment(Pool::Prefork, 4, 1), FILE),
        (deployment(Pool::Prefork, None, None), REDIS),
        (deployment(Pool::Gevent, 1, 1), THREADING),
    ] {
        deployment.check("`backend`", backend).unwrap();
    }
}

#[test]
fn nothing_that_reaches_is_an_error_with_what_to_write() {
    let message = |deployment: Deployment, configured: &[Candidate<'static>]| {
        let error = deployment.choose(configured, Some(THREADING)).unwrap_err();
        error.message().to_owned()
    };
    let several = message(deployment(Pool::Prefork, None, None), &[FILE, SQLITE]);
    assert!(
        several.contains("`file`, `sqlite` does not reach"),
        "{several}"
    );
    assert!(several.contains("`hosts = 1`"), "{several}");
    let none = message(deployment(Pool::Prefork, None, 1), &[]);
    assert!(none.contains("only `threading` is there"), "{none}");
    assert!(none.contains("`backend = \"file\"`"), "{none}");
    let nothing = deployment(None, None, None).choose(&[], None).unwrap_err();
    assert!(nothing.message().contains("no backend is configured"));
}
