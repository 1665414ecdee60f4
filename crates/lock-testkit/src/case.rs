//! One case of the suite: its name, whom it concerns, and how it is run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lock_core::{Capabilities, LeaseKind, Ordering, Scope};
use tokio::runtime::{Builder, Runtime};

use crate::context::Context;
use crate::{Failure, Fault, Kit, Outcome, stress, suite};

type Run = dyn Fn(&Context, &Runtime, Duration) -> Outcome + Send + Sync;

/// One case of the suite.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    needs: Vec<Need>,
    alone: bool,
    lengthy: bool,
    run: Arc<Run>,
}

/// What a case needs of the backend or its kit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Shared,
    NoShared,
    Permits,
    NoPermits,
    Downgrade,
    NoDowngrade,
    Lease,
    NoLease,
    AcquireMany,
    NoAcquireMany,
    BreakLock,
    NoBreakLock,
    LockDelay,
    NoLockDelay,
    DetachAnywhere,
    GlobalOrder,
    StoredFencing,
    SecondProcess,
    Fault(Fault),
    PreviousRelease,
}

impl Case {
    pub(crate) fn new<F>(module: &str, name: &str, case: F) -> Self
    where
        F: AsyncFn(&Context) -> Outcome + Send + Sync + 'static,
    {
        let section = module.rsplit("::").next().unwrap_or(module);
        let run = move |context: &Context, runtime: &Runtime, limit: Duration| {
            runtime.block_on(async {
                match tokio::time::timeout(limit, case(context)).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(Failure::new(format!("still not over after {limit:?}"))),
                }
            })
        };
        Self {
            name: format!("{section}::{name}"),
            needs: Vec::new(),
            alone: false,
            lengthy: false,
            run: Arc::new(run),
        }
    }

    /// Asks for so much that a slow store on a busy machine takes minutes.
    pub(crate) fn lengthy(mut self) -> Self {
        self.lengthy = true;
        self
    }

    pub(crate) fn needs(mut self, need: Need) -> Self {
        self.alone |= matches!(need, Need::Fault(fault) if fault.disturbs_others());
        self.needs.push(need);
        self
    }

    /// No other trial runs meanwhile.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    pub(crate) fn runs_alone(&self) -> bool {
        self.alone
    }

    /// Why the case does not concern this backend; `None` when it does.
    pub(crate) fn not_applicable(
        &self,
        capabilities: &Capabilities,
        kit: &dyn Kit,
    ) -> Option<String> {
        self.needs
            .iter()
            .find_map(|need| need.missing(capabilities, kit))
    }

    /// Runs it on runtime and clients of its own, and looks at what it left behind.
    pub(crate) fn run(&self, kit: &Arc<dyn Kit>, patience: Duration) -> Outcome {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let context = Context::new(Arc::clone(kit), patience)?;
        let leases = context.lease_life().unwrap_or_default() * 20;
        let times = if self.lengthy { 100 } else { 18 };
        let limit = patience * times + leases + stress::duration();
        let outcome = (self.run)(&context, &runtime, limit)
            .and_then(|()| runtime.block_on(context.nothing_is_left()));
        runtime.block_on(context.close());
        runtime.shutdown_timeout(Duration::from_secs(2));
        outcome
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish()
    }
}

impl Need {
    fn missing(self, has: &Capabilities, kit: &dyn Kit) -> Option<String> {
        let leased = has.lease != LeaseKind::KernelHeld;
        let unless = |met: bool, reason: &str| (!met).then(|| reason.to_owned());
        match self {
            Self::Shared => unless(has.shared, "shared mode is not declared"),
            Self::NoShared => unless(!has.shared, "shared mode is declared"),
            Self::Permits => unless(has.permits, "permits are not declared"),
            Self::NoPermits => unless(!has.permits, "permits are declared"),
            Self::Downgrade => unless(has.downgrade, "downgrade is not declared"),
            Self::NoDowngrade => unless(!has.downgrade, "downgrade is declared"),
            Self::Lease => unless(leased, "grants live by the process, there is no lease"),
            Self::NoLease => unless(!leased, "grants live by a lease"),
            Self::AcquireMany => unless(has.acquire_many, "acquire_many is not declared"),
            Self::NoAcquireMany => unless(!has.acquire_many, "acquire_many is declared"),
            Self::BreakLock => unless(has.break_lock, "break_lock is not declared"),
            Self::NoBreakLock => unless(!has.break_lock, "break_lock is declared"),
            Self::LockDelay => unless(has.lock_delay, "lock_delay is not declared"),
            Self::NoLockDelay => unless(!has.lock_delay, "lock_delay is declared"),
            Self::DetachAnywhere => unless(
                has.detach == lock_core::DetachReach::Anywhere,
                "a detached lock stays in its process",
            ),
            Self::GlobalOrder => unless(
                has.ordering == Ordering::Global,
                "order reaches over one process only",
            ),
            Self::StoredFencing => unless(
                has.fencing != lock_core::FencingLife::Process,
                "fencing tokens live with the process",
            ),
            Self::SecondProcess => kit.spec().err().map(str::to_owned),
            Self::Fault(fault) => {
                let exposed = has.scope == Scope::Network || fault == Fault::ExpireLease && leased;
                // What a backend is exposed to is not skipped: the trial then fails for want of it.
                kit.lacks(fault).filter(|_| !exposed).map(str::to_owned)
            }
            Self::PreviousRelease => unless(
                lock_core::LockKey::new("probe")
                    .is_ok_and(|key| kit.previous_release(&key).is_some()),
                "there is no previous release",
            ),
        }
    }
}

/// How one case ended.
#[derive(Debug)]
pub enum Verdict {
    /// What was promised was seen.
    Passed,
    /// It was not.
    Failed(Failure),
    /// The case does not concern this backend, for this reason.
    NotApplicable(String),
}

/// The names of all cases, in the order of the sections.
#[must_use]
pub fn names() -> Vec<String> {
    suite::cases().into_iter().map(|case| case.name).collect()
}

/// Runs one case by name, for negative controls. `patience` is how long what should happen soon may
/// take; the suite itself allows 10 s.
///
/// # Errors
/// When there is no case of this name, or the kit has no client.
///
/// # Blocking
/// Until the case is over.
pub fn run_case(kit: &Arc<dyn Kit>, name: &str, patience: Duration) -> Outcome<Verdict> {
    let case = suite::cases()
        .into_iter()
        .find(|case| case.name == name)
        .ok_or_else(|| Failure::new(format!("there is no case `{name}`; see names()")))?;
    let capabilities = kit.client()?.capabilities();
    if let Some(reason) = case.not_applicable(&capabilities, &**kit) {
        return Ok(Verdict::NotApplicable(reason));
    }
    Ok(match case.run(kit, patience) {
        Ok(()) => Verdict::Passed,
        Err(failure) => Verdict::Failed(failure),
    })
}

/// A case named after its function and module.
macro_rules! case {
    ($name:ident) => {
        $crate::case::Case::new(module_path!(), stringify!($name), $name)
    };
}
pub(crate) use case;
