//! A directory of one user alone: made privately, checked, and tried out.

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::failure::failed;
use super::file::{LockFile, LockKind};
use crate::{Error, ErrorKind, OwnerToken, Result};

/// What to do about a directory on a network file system, whose locks may exclude nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum NetworkFilesystem {
    /// Opening the backend fails, and says why.
    #[default]
    Refuse,
    /// Take it. The caller knows that its locks exclude every process that uses the directory;
    /// opening can check only the processes of this host.
    Allow,
}

/// `$XDG_RUNTIME_DIR/<name>` when that variable is an absolute path, else `<name>-<user id>` in the
/// system's directory for temporary files: where processes of one user find each other without any
/// configuration. It is not shared between users, nor between containers that have their own file
/// systems.
#[must_use]
pub fn per_user_directory(name: &str) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(runtime) if runtime.is_absolute() => runtime.join(name),
        _ => {
            let user = rustix::process::geteuid().as_raw();
            std::env::temp_dir().join(format!("{name}-{user}"))
        }
    }
}

/// Makes a directory ready that is this user's alone, and returns its absolute path.
///
/// It is created with mode 0700 when it does not exist; its parent has to. Tries whether its file
/// system keeps locks at all. What it created is removed again when a check fails.
///
/// # Errors
/// `InvalidConfig` for a directory that cannot be one, `PermissionDenied` for one that is not this
/// user's alone, `Unavailable` when the file system is full.
pub fn private_directory(wanted: &Path, network: NetworkFilesystem) -> Result<PathBuf> {
    if wanted.as_os_str().is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "`directory` is empty; write the path of a directory, or leave it out",
        ));
    }
    // Absolute, so that a later change of the working directory changes nothing; and without a
    // trailing slash, which would follow a symbolic link.
    let path = std::path::absolute(wanted)
        .map_err(|source| failed("use", wanted, source))?
        .components()
        .collect::<PathBuf>();
    let created = create(&path)?;
    let checked = check(&path, network);
    if checked.is_err() && created {
        // Empty still, or it stays.
        let _ = rustix::fs::rmdir(&path);
    }
    checked.map(|()| path)
}

/// Creates the directory with mode 0700. Returns whether it did not exist.
fn create(path: &Path) -> Result<bool> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // An existing directory on a read-only file system is reported by what fails in it.
        Err(_) if rustix::fs::lstat(path).is_ok() => Ok(false),
        Err(Errno::NOENT) => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "the parent of {} does not exist; create it, or set `directory`",
                path.display()
            ),
        )),
        Err(errno) => Err(failed("create the directory", path, errno)),
    }
}

fn check(path: &Path, network: NetworkFilesystem) -> Result<()> {
    check_ownership(path)?;
    if network == NetworkFilesystem::Refuse {
        refuse_network(path)?;
    }
    check_exclusion(path)
}

/// Nobody else may enter: whoever can create files here can make locks exclude nobody.
fn check_ownership(path: &Path) -> Result<()> {
    let stat = rustix::fs::lstat(path).map_err(|errno| failed("look at", path, errno))?;
    let shown = path.display();
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind.is_symlink() {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("{shown} is a symbolic link, which is never followed; write where it leads"),
        ));
    }
    if !kind.is_dir() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("{shown} is no directory; remove it, or set another `directory`"),
        ));
    }
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "{shown} belongs to user {}, this process runs as {user}; use a directory of your own",
                stat.st_uid
            ),
        ));
    }
    let others = Mode::from_raw_mode(stat.st_mode) & (Mode::RWXG | Mode::RWXO);
    if !others.is_empty() {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("others may enter {shown}; run `chmod 700 {shown}`"),
        ));
    }
    Ok(())
}

/// Network and user-space file systems whose locks may not reach other hosts, or even other
/// processes: the numbers are those of `statfs(2)` and the kernel's `magic.h`.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NETWORKS: [(u32, &str); 15] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x786f_4256, "VirtualBox shared folders"),
];

#[cfg(any(target_os = "linux", target_os = "android"))]
fn refuse_network(path: &Path) -> Result<()> {
    let stat = rustix::fs::statfs(path).map_err(|errno| failed("look at", path, errno))?;
    match network_name(stat.f_type as u32) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "{} is on {name}, whose locks may exclude nobody on other hosts; choose a local \
                 directory, or the redis or etcd backend, or set `network_filesystem = \"allow\"` \
                 if you know that its locks hold",
                path.display()
            ),
        )),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn network_name(magic: u32) -> Option<&'static str> {
    NETWORKS
        .iter()
        .find(|(number, _)| *number == magic)
        .map(|(_, name)| *name)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn refuse_network(_path: &Path) -> Result<()> {
    // Other systems number their file systems differently; the trial below is what is left.
    Ok(())
}

/// Tries whether the file system excludes at all: a second descriptor has to be refused.
fn check_exclusion(path: &Path) -> Result<()> {
    let trial = path.join(format!(".trial-{}", OwnerToken::mint()));
    let outcome = try_exclusion(&trial);
    let removed = match rustix::fs::unlink(&trial) {
        Err(errno) if outcome.is_ok() => Err(failed("remove", &trial, errno)),
        _ => Ok(()),
    };
    outcome.and(removed)
}

fn try_exclusion(trial: &Path) -> Result<()> {
    let mut first = LockFile::create_new(trial.to_owned())?;
    // A full file system lets files be created, but not written.
    first.set_byte(0, b'x')?;
    let mut second = LockFile::open(trial.to_owned())?;
    let excludes = first.try_lock(LockKind::Exclusive)?
        && !second.try_lock(LockKind::Exclusive)?
        && !second.try_lock(LockKind::Shared)?;
    first.unlock();
    if excludes && second.try_lock(LockKind::Exclusive)? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidConfig,
        format!(
            "two locks on {} did not exclude each other: its file system does not keep locks; \
             choose a directory on a local one",
            trial.display()
        ),
    ))
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn known_network_file_systems_are_told_apart_from_local_ones() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xff53_4d42), Some("CIFS"));
        for (local, name) in [
            (0xef53, "ext4"),
            (0x0102_1994, "tmpfs"),
            (0x794c_7630, "overlay"),
        ] {
            assert_eq!(network_name(local), None, "{name}");
        }
    }
}
