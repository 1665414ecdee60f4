//! The raw commands, without a queue, a fencing token, a record or a cleanup.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd};

/// One connection that is driven by the I/O thread of `lock-core`, as that of the backend is:
/// callers exchange messages with it.
#[derive(Clone)]
pub(crate) struct Floor {
    connection: MultiplexedConnection,
    release: Arc<str>,
    next: Arc<AtomicU64>,
}

const LIFE_MILLISECONDS: u64 = 30_000;

impl Floor {
    pub(crate) fn open(url: &str) -> Result<Self> {
        let client = Client::open(url)?;
        let (sender, connected) = std::sync::mpsc::channel();
        lock_core::runtime::handle().spawn(async move {
            // Without a time limit of its own, which would cost a timer for each command, and with
            // room for every task that sends.
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_pipeline_buffer_size(4_096);
            let script = include_str!("compare_and_delete.lua");
            let open = async {
                let mut connection = client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?;
                let load = Cmd::new().arg("SCRIPT").arg("LOAD").arg(script).to_owned();
                let release: String = load.query_async(&mut connection).await?;
                Ok::<_, redis::RedisError>((connection, release))
            };
            // Whoever asked waits below.
            let _ = sender.send(open.await);
        });
        let (connection, release) = connected.recv().context("the I/O thread is gone")??;
        Ok(Self {
            connection,
            release: release.into(),
            next: Arc::default(),
        })
    }

    pub(crate) async fn acquire(&self, key: &str) -> Result<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let token = format!("{:08x}-{number:016x}", std::process::id());
        let mut set = Cmd::new();
        set.arg("SET").arg(key).arg(&token).arg("NX").arg("PX");
        let answer: Option<String> = set
            .arg(LIFE_MILLISECONDS)
            .query_async(&mut self.connection.clone())
            .await?;
        ensure!(answer.is_some(), "{key} was not free");
        Ok(token)
    }

    pub(crate) async fn release(&self, key: &str, token: &str) -> Result<()> {
        let mut evaluate = Cmd::new();
        evaluate.arg("EVALSHA").arg(&*self.release).arg(1).arg(key);
        let deleted: u8 = evaluate
            .arg(token)
            .query_async(&mut self.connection.clone())
            .await?;
        ensure!(deleted == 1, "{key} was not ours");
        Ok(())
    }
}
