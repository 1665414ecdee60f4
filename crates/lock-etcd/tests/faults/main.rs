//! What goes wrong with real servers, and what a caller sees of it.
//!
//! Each case has a control beside it: the same steps without what guards against the fault, or
//! without the fault, which must not end the same way.
//!
//! | fault | cases |
//! |---|---|
//! | holder or waiter killed, stopped, forked | `processes`, `forks`, suite `crash` |
//! | attempt dropped, timed out, released twice or by another, asked again | suite `cancel`, `exclusive` |
//! | I/O thread or the caller's runtime blocked; a clock that jumps or stops | `held_up`; `cargo xtask tidy` lets leases use one clock |
//! | request carried out, answer lost | `replies` |
//! | cut off in either way, for less or more than the lease | `partition` |
//! | endpoint dead or silent, rolling restart | `endpoints` |
//! | leader killed or frozen, no majority | `leader` |
//! | restart with data kept, wiped, or put back from a snapshot | `store`, suite `crash` |
//! | slow network, slow disk, every other renewal unanswered | `partition`, `held_up` |
//! | key deleted, lease revoked, keys of others, history compacted, no space | `store`, suite `lease` |
//! | wrong password, forgotten login, bad certificate | `access` |
//! | one process with 10,000 locks killed | `processes` |
//! | one fault after another, judged by the history | `nemesis` |

mod access;
mod endpoints;
mod forks;
mod held_up;
mod leader;
mod nemesis;
mod partition;
mod processes;
mod replies;
mod store;
mod support;
