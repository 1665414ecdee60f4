#![doc = include_str!("../README.md")]

pub mod blocking;

mod attempts;
mod backends;
mod config;
mod deployment;
mod gate;
#[cfg(feature = "threading")]
mod global;
mod kind;
mod manager;
mod nearest;
mod of_key;
mod registry;
mod routes;
mod shutdown;
mod tracked;
mod watches;

#[cfg(all(unix, feature = "file"))]
pub use config::FileConfig;
#[cfg(all(unix, any(feature = "file", feature = "sqlite")))]
pub use config::NetworkFilesystem;
pub use config::{
    AcquireDefaults, Config, ConfigLoader, DeadlockConfig, ThreadingConfig, UnavailableSection,
};
#[cfg(all(unix, feature = "sqlite"))]
pub use config::{ApplicationDatabase, SqliteConfig};
#[cfg(feature = "etcd")]
pub use config::{EtcdConfig, EtcdTls, Secret};
#[cfg(feature = "redis")]
pub use config::{Protocol, RedisConfig, SentinelConfig, TlsConfig, Topology, Urls};
pub use deployment::{Need, Pool};
#[cfg(feature = "threading")]
pub use global::{
    create_lock, default_manager, get_default_lock_manager, lock_context, set_default_manager,
};
pub use kind::BackendKind;
pub use manager::{LockContext, LockManager, LockManagerBuilder};
pub use routes::Route;
pub use shutdown::{ShutdownReport, StillHeld};

pub use lock_core::{
    Acquire, AcquireOptions, Error, ErrorKind, FencingToken, GuardSet, Lock, LockBackend,
    LockGuard, LockKey, Mode, OwnerId, Released, Result, Scope,
};
