//! One connection through the proxy.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Direction, Ending, State, Target};

/// What goes one way: bytes, and when they are due.
type Parcel = (Instant, Vec<u8>);

pub(super) async fn run(client: TcpStream, state: watch::Receiver<State>) {
    // Without it the kernel would add delays of its own to every small message.
    let _ = client.set_nodelay(true);
    let target = state.borrow().target.clone();
    match target {
        Target::Port(port) => {
            if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                let _ = server.set_nodelay(true);
                join(client, server, state).await;
            }
        }
        Target::Socket(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                join(client, server, state).await;
            }
        }
    }
}

/// An end of a connection, which may be able to end it with a reset.
trait End: AsyncRead + AsyncWrite + Unpin {
    /// Makes the coming close a reset.
    fn reset(&self);
}

impl End for TcpStream {
    fn reset(&self) {
        // Then it closes without a reset.
        let _ = self.set_zero_linger();
    }
}

impl End for UnixStream {
    fn reset(&self) {}
}

async fn join(mut client: impl End, mut server: impl End, mut state: watch::Receiver<State>) {
    let era = state.borrow().era;
    let ended = {
        let (from_client, to_client) = tokio::io::split(&mut client);
        let (from_server, to_server) = tokio::io::split(&mut server);
        let there = pump(from_client, to_server, Direction::ToServer, state.clone());
        let back = pump(from_server, to_client, Direction::ToClient, state.clone());
        tokio::select! {
            // Whoever closes first ends the connection: the protocols here have no half-closed one.
            () = there => None,
            () = back => None,
            new_era = state.wait_for(|state| state.era != era) => {
                new_era.ok().map(|state| state.ending)
            }
        }
    };
    if ended == Some(Ending::Reset) {
        client.reset();
        server.reset();
    }
}

/// Carries bytes one way. Reading goes on while they are held back, as a real network's buffers
/// would take them in.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    mut state: watch::Receiver<State>,
) {
    let (sender, mut parcels) = mpsc::unbounded_channel::<Parcel>();
    let era = state.borrow().era;
    let seen = state.clone();
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + seen.borrow().faults[direction as usize].delay;
            if sender.send((due, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = parcels.recv().await {
            sleep_until(due).await; // sleep: the delay is the fault
            let free = |state: &State| !state.faults[direction as usize].held || state.era != era;
            let held = state.wait_for(free).await;
            // What was cut before it was healed is lost.
            let goes_on = held.is_ok_and(|state| state.era == era);
            if !goes_on || to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    // The reader's end closes the channel, and the writer ends when it has carried what was read.
    tokio::join!(read, write);
}
