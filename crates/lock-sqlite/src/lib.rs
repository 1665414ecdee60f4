#![doc = include_str!("../README.md")]
#![cfg(unix)]

mod alter;
mod attempts;
mod backend;
mod batch;
mod breaking;
mod config;
mod database;
mod ear;
mod enter;
mod error;
mod inherited;
mod inspect;
mod leave;
mod line;
mod location;
mod log;
mod mail;
mod many;
mod news;
mod office;
mod patrol;
mod schema;
mod session;
mod sql;
mod sweep;
mod turn;
mod writer;

pub use backend::SqliteBackend;
pub use config::{ApplicationDatabase, SqliteConfig};
pub use lock_core::host::NetworkFilesystem;
