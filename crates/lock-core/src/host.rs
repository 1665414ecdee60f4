//! What backends for the processes of one host have in common: a private directory, files with a
//! kernel lock, and hearing of changes to them.

mod directory;
mod failure;
mod file;
mod watch;

pub use directory::{NetworkFilesystem, per_user_directory, private_directory};
pub use failure::{failed, foreign_file, is_want_of_files};
pub use file::{LockFile, LockKind};
pub use watch::{Stirred, Watch, WatchedFile};
