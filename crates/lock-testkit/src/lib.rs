#![doc = include_str!("../README.md")]

#[macro_use]
mod failure;

pub mod faulty;
pub mod fork;
pub mod history;
pub mod network;
pub mod process;
#[cfg(feature = "services")]
pub mod services;
pub mod stress;

mod case;
mod context;
mod kit;
mod random;
mod report;
mod run;
mod suite;

pub use case::{Verdict, names, run_case};
pub use failure::{Failure, Outcome};
pub use kit::{Fault, Kit};
pub use run::main;
