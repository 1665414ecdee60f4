//! The sessions of this process: one for each life of a lease that is asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lock_core::OwnerToken;
use lock_core::clock::Instant;

use super::Session;
use crate::cluster::SharedCluster;
use crate::error::Failure;

/// A session that serves nobody is given back after this long.
const IDLE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<Duration, Kept>>,
    /// One opens, the others wait for it; when the last one failed, and how.
    opening: tokio::sync::Mutex<Option<(Instant, Failure)>>,
}

#[derive(Debug)]
struct Kept {
    session: Arc<Session>,
    used: Instant,
}

impl Sessions {
    /// The session whose lease has this life.
    pub(crate) async fn with(
        &self,
        cluster: &SharedCluster,
        ttl: Duration,
    ) -> Result<Arc<Session>, Failure> {
        if let Some(session) = self.kept(ttl) {
            return Ok(session);
        }
        let came = Instant::now();
        let mut last = self.opening.lock().await;
        if let Some(session) = self.kept(ttl) {
            return Ok(session);
        }
        if let Some((at, failure)) = &*last
            && *at >= came
        {
            // The one we waited for has failed: so would we.
            return Err(failure.clone());
        }
        let session = match Session::open(cluster, ttl).await {
            Ok(session) => Arc::new(session),
            Err(failure) => {
                *last = Some((Instant::now(), failure.clone()));
                return Err(failure);
            }
        };
        let kept = Kept {
            session: Arc::clone(&session),
            used: Instant::now(),
        };
        self.open().insert(ttl, kept);
        tokio::spawn(Arc::clone(&session).keep(Arc::clone(cluster)));
        Ok(session)
    }

    fn kept(&self, ttl: Duration) -> Option<Arc<Session>> {
        let mut open = self.open();
        let kept = open.get_mut(&ttl)?;
        kept.used = Instant::now();
        let session = Arc::clone(&kept.session);
        drop(open);
        session.is_alive().then_some(session)
    }

    /// The session that the contract knows by this name.
    pub(crate) fn named(&self, id: OwnerToken) -> Option<Arc<Session>> {
        let open = self.open();
        let mut sessions = open.values().map(|kept| &kept.session);
        sessions.find(|session| session.id == id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        let open = self.open();
        open.values()
            .map(|kept| Arc::clone(&kept.session))
            .collect()
    }

    /// Forgets those that are lost, and gives back those that serve nobody for long. Returns them.
    pub(crate) fn sweep(&self) -> Vec<OwnerToken> {
        let mut gone = Vec::new();
        self.open().retain(|_, kept| {
            // Invariant: handles are cloned under the lock only, so this and the loop that renews
            // it are the last two.
            let unused = Arc::strong_count(&kept.session) <= 2;
            let idle = unused && (kept.used + IDLE).has_passed();
            let keep = !idle && kept.session.validity.loss().is_none();
            if !keep {
                gone.push(Arc::clone(&kept.session));
            }
            keep
        });
        for session in &gone {
            session.retire();
        }
        gone.iter().map(|session| session.id).collect()
    }

    /// Gives all back.
    pub(crate) fn retire_all(&self) {
        let gone: Vec<_> = self.open().drain().map(|(_, kept)| kept.session).collect();
        for session in gone {
            session.retire();
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Duration, Kept>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
