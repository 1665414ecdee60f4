//! Tests that span crates; see the `tests` folder beside this one. The README of the project stands
//! here so that its Rust code is compiled and run.
#![doc = include_str!("../../README.md")]
