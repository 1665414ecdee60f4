//! The suite over the network-like backend, so that its lease and loss cases run without a server.

use std::sync::Arc;

use async_trait::async_trait;
use lock_core::{Keepalive, LockBackend, LockKey, Result};
use lock_testkit::network::{Keep, NetworkBackend, Server};
use lock_testkit::{Fault, Kit};

#[derive(Debug, Default)]
struct NetworkKit {
    server: Server,
}

#[async_trait]
impl Kit for NetworkKit {
    fn name(&self) -> &str {
        "network"
    }

    fn client(&self) -> Result<Arc<dyn LockBackend>> {
        let network = NetworkBackend::new(&self.server);
        Ok(Arc::new(Keepalive::new(Arc::new(network))))
    }

    fn spec(&self) -> Result<String, &'static str> {
        Err("the server lives in the memory of this process")
    }

    fn open(&self, _spec: &str) -> Result<Arc<dyn LockBackend>> {
        self.client()
    }

    async fn stored(&self) -> Result<Vec<String>> {
        Ok(self.server.stored())
    }

    fn lacks(&self, _fault: Fault) -> Option<&'static str> {
        None
    }

    async fn inflict(&self, fault: Fault, key: &LockKey) -> Result<()> {
        match fault {
            Fault::ExpireLease => {
                for holder in self.server.report(key).holders {
                    self.server.expire(holder.attempt);
                }
            }
            Fault::DeleteRecord => {
                self.server.break_holder(key, None);
            }
            Fault::Disconnect => self.server.kill_connections(),
            Fault::Restart => self.server.restart(Keep::Data),
            Fault::RestartEmpty => self.server.restart(Keep::Nothing),
            Fault::Stall => self.server.hang(),
            Fault::Resume => self.server.heal(),
            _ => unreachable!("the suite has a fault that this kit does not know"),
        }
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    lock_testkit::main(NetworkKit::default())
}
