//! Tests that span crates; see the `tests` folder beside this one. Documents whose Rust code no crate
//! compiles stand here, so that it is compiled and run.
#![doc = include_str!("../../README.md")]
#![doc = include_str!("../../docs/BACKENDS.md")]
