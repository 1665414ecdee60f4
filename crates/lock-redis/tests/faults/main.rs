//! Servers that refuse, stop, move and fail over, and networks that fall apart: what the conformance
//! suite does not reach, because it asks every backend the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod failover;
mod forks;
mod outages;
mod partitions;
mod refusals;
mod rights;
mod settings;
mod streams;
mod support;
