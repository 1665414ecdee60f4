//! Two processes that push to each other through the server, as fast as it goes: what a hand-over
//! cannot beat by much.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lock_benches::{Role, Samples};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, PushInfo, PushKind};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub(crate) const ROLE: &str = "echo";
const THERE: &str = "ping-pong:there";
const BACK: &str = "ping-pong:back";

/// This process's end.
pub(crate) struct PingPong {
    runtime: Runtime,
    end: End,
    other: Child,
}

impl PingPong {
    pub(crate) fn start(url: &str) -> Result<Self> {
        let mut other = Role::new(ROLE)
            .command(&[url])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = other.stdout.take().context("no standard output")?;
        BufReader::new(output).read_line(&mut String::new())?;
        let runtime = runtime()?;
        let end = runtime.block_on(End::open(url, BACK))?;
        Ok(Self {
            runtime,
            end,
            other,
        })
    }

    /// Times of a push there and a push back. Each begins after some time at `rest`, as a hand-over
    /// does, by which caches and cores have cooled down.
    pub(crate) fn round_trips(&mut self, count: usize, rest: Duration) -> Result<Samples> {
        self.runtime.block_on(async {
            let mut samples = Samples::default();
            for _ in 0..count {
                if !rest.is_zero() {
                    tokio::time::sleep(rest).await;
                }
                let start = Instant::now();
                self.end.push_to(THERE).await?;
                self.end.pushed().await?;
                samples.push(start.elapsed());
            }
            Ok(samples)
        })
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        // One that has ended needs no ending.
        let _ = self.other.kill();
        let _ = self.other.wait();
    }
}

/// The other process: answers every push, until its input ends.
pub(crate) fn echo(arguments: &[String]) -> Result<()> {
    let [url] = arguments else {
        bail!("an echo needs a URL");
    };
    runtime()?.block_on(async {
        let mut end = End::open(url, THERE).await?;
        let mut output = std::io::stdout();
        writeln!(output, "ready")?;
        output.flush()?;
        loop {
            end.pushed().await?;
            end.push_to(BACK).await?;
        }
    })
}

/// A connection that is pushed to.
struct End {
    connection: MultiplexedConnection,
    pushes: UnboundedReceiver<PushInfo>,
}

impl End {
    async fn open(url: &str, channel: &str) -> Result<Self> {
        let client = Client::open(format!("{url}?protocol=resp3"))?;
        let (sender, pushes) = unbounded_channel();
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_push_sender(sender);
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        connection.subscribe(channel).await?;
        Ok(Self { connection, pushes })
    }

    async fn push_to(&mut self, channel: &str) -> Result<()> {
        let mut publish = Cmd::new();
        publish.arg("PUBLISH").arg(channel).arg("ball");
        let received: u8 = publish.query_async(&mut self.connection).await?;
        anyhow::ensure!(received == 1, "nobody listens to {channel}");
        Ok(())
    }

    async fn pushed(&mut self) -> Result<()> {
        loop {
            let push = self.pushes.recv().await.context("the connection ended")?;
            if push.kind == PushKind::Message {
                return Ok(());
            }
        }
    }
}

fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}
