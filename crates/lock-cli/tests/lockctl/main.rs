//! The `lockctl` binary from outside: real processes, real signals, real lock files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod inspect;
mod run;
mod settings;
mod stop;
mod support;
#[cfg(target_os = "linux")]
mod terminal;
