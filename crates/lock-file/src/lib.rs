#![doc = include_str!("../README.md")]
#![cfg(unix)]

mod backend;
mod breaking;
mod config;
mod contend;
mod entry;
mod error;
mod inspect;
mod kernel;
mod names;
mod record;
mod seat;
mod slots;
mod table;
mod turnstile;
mod watchman;
mod writing;

pub use backend::FileBackend;
pub use config::FileConfig;
pub use lock_core::host::NetworkFilesystem;
