//! Which backend a deployment needs: the pool, the worker processes and the hosts decide.

use std::fmt;
use std::num::NonZeroU32;

use lock_core::{Error, ErrorKind, Result, Scope};
use serde::{Deserialize, Serialize};

use crate::kind::BackendKind;

/// How the workers of a deployment run: the `--pool` of Celery, or its like elsewhere.
///
/// | pool | worker processes | needs at least |
/// |---|---|---|
/// | `prefork`, `processes` | several | host, and `hosts` must be stated; network if it is not |
/// | `threads`, `solo` | one unless stated | process |
/// | `gevent`, `eventlet` | one unless stated | process |
/// | `custom` | must be stated | process |
///
/// More than one worker process needs `host`, more than one host needs `network`, whatever the pool.
///
/// Under `gevent` and `eventlet` all greenlets share one thread, so a blocking acquire freezes the
/// hub, and the greenlet that holds the lock with it. There, call
/// [`try_acquire`](lock_core::Lock::try_acquire) and sleep cooperatively between two tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Child processes, Celery's default.
    Prefork,
    /// The same under its other name.
    Processes,
    /// Threads of one process.
    Threads,
    /// Greenlets of one thread, by gevent.
    Gevent,
    /// Greenlets of one thread, by eventlet.
    Eventlet,
    /// One task at a time, in the worker itself.
    Solo,
    /// A pool of one's own: nothing is known about it but the numbers stated.
    Custom,
}

impl Pool {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Prefork,
        Self::Processes,
        Self::Threads,
        Self::Gevent,
        Self::Eventlet,
        Self::Solo,
        Self::Custom,
    ];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefork => "prefork",
            Self::Processes => "processes",
            Self::Threads => "threads",
            Self::Gevent => "gevent",
            Self::Eventlet => "eventlet",
            Self::Solo => "solo",
            Self::Custom => "custom",
        }
    }

    /// Whether its workers are processes of their own, also when there is only one: a child that is
    /// replaced may overlap with the next one.
    pub fn forks(self) -> bool {
        matches!(self, Self::Prefork | Self::Processes)
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known about a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deployment {
    pub(crate) pool: Option<Pool>,
    pub(crate) worker_processes: Option<NonZeroU32>,
    pub(crate) hosts: Option<NonZeroU32>,
}

/// How far the locks of a deployment must exclude, and why: [`Config::need`](crate::Config::need).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    scope: Scope,
    /// Reads after "because".
    why: String,
    /// What to state to get by with less; empty if the numbers are all there.
    state: String,
}

/// A backend that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    pub(crate) name: &'a str,
    pub(crate) scope: Scope,
}

impl Deployment {
    /// How far exclusion must reach.
    pub(crate) fn need(self) -> Need {
        let need = |scope, why: String| Need {
            scope,
            why,
            state: String::new(),
        };
        let processes = self.worker_processes.map_or(1, NonZeroU32::get);
        let hosts = self.hosts.map_or(1, NonZeroU32::get);
        if hosts > 1 {
            return need(Scope::Network, format!("`hosts` is {hosts}"));
        }
        match self.pool {
            Some(pool) if pool.forks() && self.hosts.is_none() => Need {
                scope: Scope::Network,
                why: format!("pool `{pool}` runs several processes and `hosts` is not stated"),
                state: "if all of them run on one host, write `hosts = 1`".to_owned(),
            },
            Some(Pool::Custom) if self.hosts.is_none() || self.worker_processes.is_none() => Need {
                scope: Scope::Network,
                why: format!("pool `custom` runs {}", self.unstated()),
                state: "state `worker_processes` and `hosts`".to_owned(),
            },
            Some(pool) if pool.forks() => need(
                Scope::Host,
                format!("pool `{pool}` runs its workers as processes"),
            ),
            _ if processes > 1 => need(Scope::Host, format!("`worker_processes` is {processes}")),
            Some(pool) => need(Scope::Process, format!("pool `{pool}` runs in one process")),
            None => need(Scope::Process, "no pool is stated".to_owned()),
        }
    }

    fn unstated(self) -> &'static str {
        match (self.worker_processes, self.hosts) {
            (None, None) => "an unstated number of processes on an unstated number of hosts",
            (None, Some(_)) => "an unstated number of processes",
            (Some(_), _) => "on an unstated number of hosts",
        }
    }

    /// The backend to use when none is named: the narrowest of `configured` that reaches far enough;
    /// where no pool is stated, the one that reaches farthest.
    ///
    /// `configured` is what was configured or plugged in; `threading` needs no configuration and
    /// counts as such where it is `built_in`.
    pub(crate) fn choose<'a>(
        self,
        configured: &[Candidate<'a>],
        built_in: Option<Candidate<'a>>,
    ) -> Result<Candidate<'a>> {
        let need = self.need();
        let reaches = |candidate: &&Candidate<'a>| candidate.scope >= need.scope;
        // Equals: the first one. `max_by_key` would take the last.
        let chosen = if self.pool.is_none() && !configured.is_empty() {
            configured
                .iter()
                .filter(reaches)
                .rev()
                .max_by_key(|candidate| candidate.scope)
        } else {
            built_in
                .iter()
                .chain(configured)
                .filter(reaches)
                .min_by_key(|candidate| candidate.scope)
        };
        chosen.copied().ok_or_else(|| {
            let have = match (configured, built_in) {
                ([], None) => "no backend is configured".to_owned(),
                ([], Some(built_in)) => format!("only `{}` is there", built_in.name),
                (configured, _) => format!("`{}` does not reach that far", names(configured)),
            };
            Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "`backend`: a lock must exclude {} because {}, and {have}; {}",
                    reach(need.scope),
                    need.why,
                    need.remedy()
                ),
            )
        })
    }

    /// Refuses a backend that does not reach far enough. `place` is where it is named.
    pub(crate) fn check(self, place: &str, backend: Candidate<'_>) -> Result<()> {
        let need = self.need();
        if backend.scope >= need.scope {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "{place}: backend `{}` excludes only {}, but a lock must exclude {} because {}; {}",
                backend.name,
                reach(backend.scope),
                reach(need.scope),
                need.why,
                need.remedy()
            ),
        ))
    }
}

impl Need {
    /// How far they must exclude at least.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The settings that decide it, in words that read after "because".
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What to write instead.
    fn remedy(&self) -> String {
        let reaching: Vec<String> = BackendKind::ALL
            .into_iter()
            .filter(|kind| kind.is_available() && kind.scope() >= self.scope)
            .map(|kind| format!("`backend = \"{}\"`", kind.name()))
            .collect();
        let wider = if reaching.is_empty() {
            format!(
                "no backend of this build excludes {}; plug one in with `LockManager::builder()`",
                reach(self.scope)
            )
        } else {
            format!("write {}", reaching.join(" or "))
        };
        if self.state.is_empty() {
            return wider;
        }
        format!("{wider}; or {}", self.state)
    }
}

fn reach(scope: Scope) -> &'static str {
    match scope {
        Scope::Process => "the tasks and threads of one process",
        Scope::Host => "the processes of one host",
        Scope::Network => "processes on other hosts",
    }
}

fn names(candidates: &[Candidate<'_>]) -> String {
    let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name).collect();
    names.join("`, `")
}

#[cfg(test)]
mod tests;
