#![doc = include_str!("../README.md")]
#![cfg(unix)]

mod backend;
mod breaking;
mod config;
mod contend;
mod directory;
mod entry;
mod error;
mod inspect;
mod kernel;
mod key_file;
mod map;
mod names;
mod numbers;
mod page;
mod record;
mod seat;
mod slots;
mod sweep;
mod table;
mod turnstile;
mod watchman;
mod writing;

pub use backend::FileBackend;
pub use config::FileConfig;
pub use lock_core::host::NetworkFilesystem;
