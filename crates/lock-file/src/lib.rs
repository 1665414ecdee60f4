#![doc = include_str!("../README.md")]
#![cfg(unix)]

mod backend;
mod breaking;
mod config;
mod contend;
mod directory;
mod entry;
mod error;
mod handle;
mod inspect;
mod kernel;
mod names;
mod record;
mod seat;
mod slots;
mod table;
mod turnstile;
mod watch;
mod watchman;
mod writing;

pub use backend::FileBackend;
pub use config::{FileConfig, NetworkFilesystem};
