//! Taking a lock away from its holders.

use lock_core::{LockKey, OwnerToken, ProcessNonce};

use crate::batch::{Command, Work};
use crate::line::Line;
use crate::news::Seat;
use crate::sql;

/// Takes a key away from all holders, or from one.
#[derive(Debug)]
pub(crate) struct Break {
    pub(crate) key: LockKey,
    pub(crate) attempt: Option<OwnerToken>,
    pub(crate) broken: usize,
}

impl Command for Break {
    fn run(&mut self, work: &mut Work<'_>) -> rusqlite::Result<()> {
        self.broken = 0;
        let seats = self.seats(work)?;
        let Some(mut line) = Line::open(work, self.key.qualified())? else {
            return Ok(());
        };
        // The dead are no holders, whatever the rows say.
        line.remove_gone()?;
        for seat in seats {
            self.broken += usize::from(line.revoke(seat)?);
        }
        line.admit()?;
        line.save()
    }
}

impl Break {
    fn seats(&self, work: &Work<'_>) -> rusqlite::Result<Vec<Seat>> {
        let seat = |row: &rusqlite::Row<'_>| {
            let nonce: Option<[u8; 16]> = row.get(2)?;
            let attempt = row.get::<_, i64>(1)? as u64;
            let process = nonce.map(|bits| ProcessNonce::from_bits(u128::from_be_bytes(bits)));
            let token = process.map(|process| OwnerToken::from_parts(process, attempt));
            let session = row.get(0)?;
            Ok((Seat { session, attempt }, token))
        };
        let holders = work
            .database
            .all(sql::HOLDERS, [self.key.qualified()], seat)?;
        let wanted = holders
            .into_iter()
            .filter(|(_, token)| self.attempt.is_none() || *token == self.attempt);
        Ok(wanted.map(|(seat, _)| seat).collect())
    }
}
