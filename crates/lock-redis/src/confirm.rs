//! Asking how many replicas have a grant.

use std::sync::Arc;

use lock_core::{OwnerToken, Result, runtime};
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;

use crate::config::RedisConfig;
use crate::connect::connect_plain;
use crate::driver::Event;
use crate::error::{Remedy, remedy, unavailable};
use crate::topology::Nodes;

/// Waits for replicas on a connection of its own: WAIT keeps everything behind it waiting, too.
pub(crate) struct Confirmer {
    attempts: mpsc::UnboundedSender<OwnerToken>,
}

impl Confirmer {
    pub(crate) fn start(
        config: Arc<RedisConfig>,
        node: String,
        reporter: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let (attempts, mut received) = mpsc::unbounded_channel();
        runtime::handle().spawn(async move {
            let mut connection = None;
            while let Some(attempt) = received.recv().await {
                let mut asked = vec![attempt];
                // One WAIT answers for all that were granted before it.
                while let Ok(attempt) = received.try_recv() {
                    asked.push(attempt);
                }
                let replicas = wait(&config, &node, &mut connection).await;
                if replicas.is_err() {
                    connection = None;
                }
                for attempt in asked {
                    let replicas = replicas.clone();
                    let _ = reporter.send(Event::Confirmed { attempt, replicas });
                }
            }
        });
        Self { attempts }
    }

    pub(crate) fn confirm(&self, attempt: OwnerToken) {
        let _ = self.attempts.send(attempt);
    }
}

async fn wait(
    config: &RedisConfig,
    node: &str,
    connection: &mut Option<MultiplexedConnection>,
) -> Result<u32> {
    let mut ready = match connection.take() {
        Some(ready) => ready,
        None => connect_plain(config, Nodes::locate(config, node).await?).await?,
    };
    let limit = config.response_timeout;
    let mut both = redis::pipe();
    // WAIT waits for what its own connection saw last, which a PING brings up to the grant.
    both.cmd("PING").ignore();
    both.cmd("WAIT")
        .arg(config.replicas)
        .arg(limit.as_millis() as u64 / 2);
    let asked = tokio::time::timeout(limit, both.query_async::<(u32,)>(&mut ready)).await;
    let answer = match asked {
        Ok(Ok((replicas,))) => Ok(replicas),
        Ok(Err(failure)) => Err(match remedy(&failure) {
            Remedy::Refuse(error) => error,
            _ => unavailable("how many replicas have the grant"),
        }),
        Err(_) => Err(unavailable("how many replicas have the grant")),
    };
    *connection = Some(ready);
    answer
}
