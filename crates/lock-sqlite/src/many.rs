//! Several keys in one step: all of them, or none.

use std::sync::Arc;

use lock_core::{Grant, Result};

use crate::batch::{Command, Work};
use crate::enter::Enter;
use crate::news::Claim;
use crate::office::Office;

/// Asks for several keys without waiting.
#[derive(Debug)]
pub(crate) struct Many {
    enters: Vec<Enter>,
    claims: Result<Option<Vec<Claim>>>,
    /// In the order of the keys. `None`: one of them is contended.
    pub(crate) grants: Option<Vec<Grant>>,
}

impl Many {
    pub(crate) fn new(enters: Vec<Enter>) -> Self {
        Self {
            enters,
            claims: Ok(None),
            grants: None,
        }
    }

    /// Why it can never be granted.
    pub(crate) fn refusal(&self) -> Result<()> {
        self.claims.clone().map(drop)
    }
}

impl Command for Many {
    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        work.database.execute("SAVEPOINT lock_many", ())?;
        let news = work.news.len();
        let mut claims = Vec::with_capacity(self.enters.len());
        self.claims = Ok(None);
        for enter in &mut self.enters {
            enter.run(work)?;
            match enter.claimed() {
                Ok(Some(claim)) => claims.push(claim),
                Ok(None) => break,
                Err(error) => {
                    self.claims = Err(error);
                    break;
                }
            }
        }
        if claims.len() == self.enters.len() {
            self.claims = Ok(Some(claims));
        } else {
            work.database.execute("ROLLBACK TO lock_many", ())?;
            work.news.truncate(news);
        }
        work.database.execute("RELEASE lock_many", ()).map(drop)
    }

    fn settle(&mut self, office: &Arc<Office>, outcome: &Result<()>) {
        let claims = outcome.as_ref().map(|()| self.claims.as_ref());
        let Ok(Ok(Some(claims))) = claims else {
            for enter in &self.enters {
                office
                    .attempts()
                    .turn_away(enter.request().attempt, Ok(None));
            }
            return;
        };
        let mut grants = Vec::with_capacity(claims.len());
        for (enter, claim) in self.enters.iter().zip(claims) {
            let attempt = enter.request().attempt;
            office.attempts().grant(attempt, *claim);
            grants.extend(office.attempts().held(attempt));
        }
        // One that was abandoned meanwhile leaves by itself.
        self.grants = Some(grants);
    }
}
