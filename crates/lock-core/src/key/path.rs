//! One name per file, however its path is written.

use std::path::{Component, Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// `path:` and the canonical absolute path.
pub(super) fn canonical_name(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path).map_err(|source| {
        Error::new(
            ErrorKind::InvalidKey,
            format!("`{}` has no absolute path; give one", path.display()),
        )
        .with_source(source)
    })?;
    let mut resolved = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::CurDir => {}
            // Invariant: what is resolved so far has no links, so its parent is its prefix.
            Component::ParentDir => {
                resolved.pop();
            }
            part => {
                resolved.push(part);
                if let Ok(real) = resolved.canonicalize() {
                    resolved = real;
                }
            }
        }
    }
    Ok(format!("path:{}", percent_encoded(&resolved)))
}

fn percent_encoded(path: &Path) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        // A literal percent sign must not read like an encoded byte.
        out.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            let _ = write!(out, "%{byte:02x}");
        }
    }
    out
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_file_are_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink(&file, dir.path().join("link")).unwrap();
        let name = canonical_name(&file).unwrap();
        for spelling in ["./a", "b/../a", "missing/../a", "link", ".//a"] {
            assert_eq!(
                canonical_name(&dir.path().join(spelling)).unwrap(),
                name,
                "{spelling}"
            );
        }
        assert_ne!(canonical_name(&dir.path().join("b")).unwrap(), name);
    }

    #[test]
    fn bytes_that_are_not_utf8_do_not_collide() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let odd = canonical_name(Path::new(OsStr::from_bytes(b"/tmp/a\xff"))).unwrap();
        assert_ne!(odd, canonical_name(Path::new("/tmp/a%ff")).unwrap());
        assert!(odd.ends_with("/a%ff"));
    }
}
