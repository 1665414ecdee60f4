//! A connection that goes wrong on purpose.

mod link;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::Outcome;

/// A TCP proxy on the loopback address that breaks the connections through it.
///
/// What is held back by a [black hole](Self::black_hole) is not thrown away: like the packets of a
/// real partition it arrives late, when [`heal`](Self::heal) ends the fault, or never, if the
/// connection is [cut](Self::cut) before. Ends on drop, with all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
}

/// Where a proxy leads.
#[derive(Clone, Debug)]
pub enum Target {
    /// To a TCP port of the loopback address.
    Port(u16),
    /// To a unix socket.
    Socket(PathBuf),
}

/// Which way through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who connects to the target.
    ToServer = 0,
    /// From the target to who connected.
    ToClient = 1,
}

/// What all connections of a proxy obey.
#[derive(Clone, Debug)]
struct State {
    target: Target,
    faults: [Faults; 2],
    /// A connection that began in another era is cut.
    era: u64,
    /// How the connections of the last era end.
    ending: Ending,
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    held: bool,
    delay: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Close,
    Reset,
}

impl Proxy {
    /// A proxy that does no harm yet.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(target: Target) -> Outcome<Self> {
        let (state, seen) = watch::channel(State {
            target,
            faults: [Faults::default(); 2],
            era: 0,
            ending: Ending::Close,
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, super::port::free()?))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("fault-proxy".into())
            .spawn(move || runtime.block_on(serve(listener, seen)))?;
        Ok(Self { port, state })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Leads new connections to another target. Those that are open stay.
    pub fn lead_to(&self, target: Target) {
        self.state.send_modify(|state| state.target = target);
    }

    /// Holds back what goes this way, on open and new connections.
    pub fn black_hole(&self, direction: Direction) {
        let faults = |state: &mut State| state.faults[direction as usize].held = true;
        self.state.send_modify(faults);
    }

    /// Holds back what goes either way.
    pub fn partition(&self) {
        self.black_hole(Direction::ToServer);
        self.black_hole(Direction::ToClient);
    }

    /// Delays what goes this way from now on, keeping its order.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.state
            .send_modify(|state| state.faults[direction as usize].delay = delay);
    }

    /// Closes every open connection, and forgets what was held back for it.
    pub fn cut(&self) {
        self.end_all(Ending::Close);
    }

    /// Resets every open connection (`ECONNRESET` for both ends).
    pub fn reset(&self) {
        self.end_all(Ending::Reset);
    }

    /// Ends black holes and delays: what was held back arrives now.
    pub fn heal(&self) {
        self.state
            .send_modify(|state| state.faults = [Faults::default(); 2]);
    }

    fn end_all(&self, ending: Ending) {
        self.state.send_modify(|state| {
            state.era += 1;
            state.ending = ending;
        });
    }
}

/// Accepts until the proxy is dropped. The runtime ends with it, and so does every connection.
async fn serve(listener: std::net::TcpListener, mut state: watch::Receiver<State>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                tokio::spawn(link::run(client, state.clone()));
            },
            changed = state.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
