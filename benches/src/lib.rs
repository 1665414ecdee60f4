#![doc = include_str!("../README.md")]
//!
//! ```no_run
//! use lock_benches::{Bar, Session, nanoseconds_per_call};
//!
//! fn main() -> anyhow::Result<std::process::ExitCode> {
//!     let mut session = Session::start("example")?;
//!     if let Some(rounds) = session.section("uncontended", |round| {
//!         round.record("floor", nanoseconds_per_call(1_000_000, || drop(String::new())));
//!         round.record("ours", nanoseconds_per_call(1_000_000, || drop(String::new())));
//!         Ok(())
//!     })? {
//!         let ratio = |round: &lock_benches::Round| round.get("ours") / round.get("floor");
//!         session.judge(&rounds, &Bar::at_most("uncontended", 1.6), ratio);
//!     }
//!     Ok(session.finish())
//! }
//! ```
#![expect(
    clippy::print_stdout,
    reason = "printing what was measured is a bench's purpose"
)]

mod bar;
mod calibration;
mod machine;
mod python;
mod role;
mod round;
mod samples;
mod session;
mod table;

pub use bar::{Bar, Verdict};
pub use python::python_with;
pub use role::{Role, role};
pub use round::{Round, Rounds};
pub use samples::{Samples, nanoseconds_per_call};
pub use session::Session;
pub use table::Table;
