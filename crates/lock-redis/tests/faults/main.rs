//! Servers that refuse, stop, move and fail over, and networks that fall apart: what the conformance
//! suite does not reach, because it asks every backend the same.

mod cluster;
mod failover;
mod outages;
mod partitions;
mod refusals;
mod support;
