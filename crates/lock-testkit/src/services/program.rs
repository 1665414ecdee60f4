//! Where the program of a server is.

use std::path::{Path, PathBuf};

use crate::{Failure, Outcome};

/// A program that runs a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerProgram {
    /// Its name on `PATH`.
    pub name: &'static str,
    /// The environment variable that holds another path.
    pub variable: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

impl ServerProgram {
    /// Where it is: what the variable says, otherwise on `PATH`.
    ///
    /// # Errors
    /// When it is in neither place; the message says what to install.
    pub fn find(&self) -> Outcome<PathBuf> {
        let given = std::env::var_os(self.variable).filter(|path| !path.is_empty());
        let path = std::env::var_os("PATH").unwrap_or_default();
        self.find_in(given.map(PathBuf::from), std::env::split_paths(&path))
    }

    fn find_in(
        &self,
        given: Option<PathBuf>,
        mut folders: impl Iterator<Item = PathBuf>,
    ) -> Outcome<PathBuf> {
        let Self {
            name,
            variable,
            package,
        } = self;
        match given {
            Some(path) if path.is_file() => Ok(path),
            Some(path) => Err(Failure::new(format!(
                "{variable} says {}, where no file is",
                path.display()
            ))),
            None => folders
                .find_map(|folder| Some(folder.join(name)).filter(|path| is_program(path)))
                .ok_or_else(|| {
                    Failure::new(format!(
                        "this test needs `{name}`: install it (Debian: `apt-get install {package}`), \
                         or set {variable} to its path"
                    ))
                }),
        }
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: ServerProgram = ServerProgram {
        name: "some-server",
        variable: "SOME_SERVER",
        package: "some-package",
    };

    #[test]
    fn a_missing_program_is_an_error_that_says_what_to_install() {
        let empty = tempfile::tempdir().unwrap();
        let folders = [empty.path().to_owned()];
        let message = PROGRAM
            .find_in(None, folders.into_iter())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("apt-get install some-package"),
            "{message}"
        );
        assert!(message.contains("SOME_SERVER"), "{message}");
    }

    #[test]
    fn a_given_path_must_exist_and_goes_before_the_search() {
        let gone = PathBuf::from("/nowhere/some-server");
        let error = PROGRAM.find_in(Some(gone), std::iter::empty()).unwrap_err();
        assert!(error.message().contains("SOME_SERVER says /nowhere"));
        let shell = PathBuf::from("/bin/sh");
        let found = PROGRAM.find_in(Some(shell.clone()), std::iter::empty());
        assert_eq!(found.unwrap(), shell);
    }
}
