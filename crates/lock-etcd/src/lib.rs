#![doc = include_str!("../README.md")]

mod alter;
mod backend;
mod client;
mod cluster;
mod config;
mod enter;
mod error;
mod fenced;
mod grant;
mod inspect;
mod layout;
mod leave;
mod line;
mod many;
mod mirror;
mod queue;
mod record;
mod session;
mod version;
mod watch;
mod wire;

pub use backend::EtcdBackend;
pub use config::{EtcdConfig, EtcdTls, Secret};
pub use fenced::{Condition, EtcdEntry, EtcdGuard, EtcdOutcome, FencedTransaction};
