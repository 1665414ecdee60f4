#![doc = include_str!("../README.md")]

mod backend;
mod config;
mod confirm;
mod connect;
mod driver;
mod error;
mod inspect;
mod names;
mod party;
mod pledges;
mod script;
mod server_clock;
mod topology;

pub use backend::RedisBackend;
pub use config::{Protocol, RedisConfig, SentinelConfig, TlsConfig, Topology, Urls};
