//! What goes wrong with real servers, and what a caller sees of it.
//!
//! Each case has a control beside it: the same steps without what guards against the fault, or
//! without the fault, which must not end the same way.

mod access;
mod endpoints;
mod forks;
mod leader;
mod partition;
mod processes;
mod replies;
mod store;
mod support;
