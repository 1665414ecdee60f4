//! The database file and the directory of sessions: found, checked, made privately.

use std::path::{Path, PathBuf};

use lock_core::host::{failed, private_directory};
use lock_core::{ErrorKind, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::config::{ApplicationDatabase, SqliteConfig};
use crate::error::{error, named};

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    /// The database, as an absolute path without links.
    pub(crate) database: PathBuf,
    /// A file and a socket for each process.
    pub(crate) sessions: PathBuf,
}

impl Location {
    /// Checks the directory, and makes it if it is not there.
    pub(crate) fn prepare(config: &SqliteConfig) -> Result<Self> {
        let wanted = config
            .path
            .clone()
            .unwrap_or_else(SqliteConfig::per_user_path);
        let absolute = std::path::absolute(&wanted);
        let absolute = absolute.map_err(|source| named(failed("use", &wanted, source)))?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(error(
                ErrorKind::InvalidConfig,
                format!(
                    "{} is no path of a file; set another `path`",
                    wanted.display()
                ),
            ));
        };
        match config.application_database {
            ApplicationDatabase::Refuse => {
                private_directory(parent, config.network_filesystem).map_err(named)?;
            }
            ApplicationDatabase::Allow => check_application_directory(parent)?,
        }
        // SQLite refuses links anywhere in the path; those above the directory are the system's.
        let parent = parent
            .canonicalize()
            .map_err(|source| named(failed("use", parent, source)))?;
        let database = parent.join(name);
        check_file(&database)?;
        let mut sessions = name.to_owned();
        sessions.push("-sessions");
        Ok(Self {
            sessions: parent.join(sessions),
            database,
        })
    }

    /// Makes the directory of sessions.
    pub(crate) fn make_sessions(&self, config: &SqliteConfig) -> Result<()> {
        private_directory(&self.sessions, config.network_filesystem).map_err(named)?;
        Ok(())
    }

    /// Creates the database file, empty and private, if it is not there.
    pub(crate) fn make_file(&self) -> Result<()> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::open(&self.database, flags, Mode::RUSR | Mode::WUSR) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(named(failed("create", &self.database, errno))),
        }
    }

    /// Device and inode of the database file.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        identity(&self.database)
    }
}

/// Device and inode of a file.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::lstat(path).ok()?;
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        trivial_numeric_casts,
        reason = "the types differ between systems"
    )]
    Some((stat.st_dev as u64, stat.st_ino as u64))
}

fn lstat(path: &Path) -> Result<Option<Stat>> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(named(failed("look at", path, errno))),
    }
}

/// Others may read an application's directory, but whoever may write there can replace the file.
fn check_application_directory(path: &Path) -> Result<()> {
    let shown = path.display();
    let Some(stat) = lstat(path)? else {
        let message =
            format!("{shown} does not exist; set the `path` of the application's database");
        return Err(error(ErrorKind::InvalidConfig, message));
    };
    let writable = Mode::from_raw_mode(stat.st_mode) & (Mode::WGRP | Mode::WOTH);
    if !writable.is_empty() || stat.st_uid != rustix::process::geteuid().as_raw() {
        let message = format!("others may write to {shown}; run `chmod go-w {shown}` as its owner");
        return Err(error(ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

fn check_file(path: &Path) -> Result<()> {
    let Some(stat) = lstat(path)? else {
        return Ok(());
    };
    let shown = path.display();
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind.is_symlink() {
        let message =
            format!("{shown} is a symbolic link, which is never followed; write where it leads");
        return Err(error(ErrorKind::PermissionDenied, message));
    }
    if !kind.is_file() {
        let message = format!("{shown} is no regular file; set another `path`");
        return Err(error(ErrorKind::InvalidConfig, message));
    }
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user {
        let message = format!(
            "{shown} belongs to user {}, this process runs as {user}",
            stat.st_uid
        );
        return Err(error(ErrorKind::PermissionDenied, message));
    }
    Ok(())
}
