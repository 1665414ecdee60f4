//! What the keys of one directory share.

use std::path::{Path, PathBuf};

use crate::map;
use crate::numbers::Numbers;

/// What the keys of one directory share, in one process.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    pub(crate) may_map: bool,
    pub(crate) numbers: Numbers,
}

impl Directory {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            may_map: map::is_safe_in(path),
            numbers: Numbers::new(path),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
