//! Files, profiles and environment variables, read once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::providers::{Env, Format as _, Json, Serialized, Toml, Yaml};
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};
use lock_core::Result;

use super::{Config, explain};
use crate::nearest::did_you_mean;

/// Names of environment variables start with this, and `__` separates the parts of a setting:
/// `LOCK_ACQUIRE__WAIT_LIMIT=5s`.
pub(super) const ENV_PREFIX: &str = "LOCK_";
pub(super) const ENV_SEPARATOR: &str = "__";

/// Variables that are not settings: where the configuration is, and what `lockctl run` tells the
/// command that it runs.
const ENV_IGNORED: [&str; 6] = ["config", "profile", "key", "mode", "slot", "fencing_token"];

/// Reads a [`Config`] from files, in a profile, with or without environment variables.
///
/// ```no_run
/// # fn main() -> lock_manager::Result<()> {
/// let config = lock_manager::Config::loader()
///     .file("locks.toml")
///     .file("locks.local.yaml") // settings of later files replace those of earlier ones
///     .with_env() // LOCK_POOL=prefork, LOCK_ACQUIRE__WAIT_LIMIT=5s
///     .load()?;
/// # let _ = config; Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is read before `load`"]
pub struct ConfigLoader {
    files: Vec<PathBuf>,
    profile: Option<String>,
    env: bool,
}

impl ConfigLoader {
    /// Adds a file: `.toml`, `.yaml`, `.yml` or `.json`. It must exist.
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.files.push(path.as_ref().to_owned());
        self
    }

    /// Chooses a profile. Each file then has one table per profile at its top; the settings are those
    /// of `[default]`, replaced by those of the profile, replaced by those of `[global]`.
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.profile = Some(name.into());
        self
    }

    /// Lets environment variables replace what the files say: `LOCK_` and the setting, with `__`
    /// between its parts. `LOCK_CONFIG` and `LOCK_PROFILE` are left to programs, and what `lockctl run`
    /// tells its command is passed over.
    pub fn with_env(mut self) -> Self {
        self.env = true;
        self
    }

    /// Reads everything.
    ///
    /// # Errors
    /// `InvalidConfig` with the file or variable, the setting, and what to write.
    pub fn load(&self) -> Result<Config> {
        let mut figment = Figment::new();
        for path in &self.files {
            figment = self.merge_file(figment, path)?;
        }
        if let Some(profile) = &self.profile {
            check_profile(&figment, profile, &self.files)?;
            figment = figment.select(Profile::new(profile));
        }
        if self.env {
            let env = Env::prefixed(ENV_PREFIX)
                .ignore(&ENV_IGNORED)
                .split(ENV_SEPARATOR);
            figment = figment.merge(env.profile(Profile::Global));
        }
        Config::extract(&figment)
    }

    fn merge_file(&self, figment: Figment, path: &Path) -> Result<Figment> {
        let place = format!("in {}", path.display());
        if let Err(error) = std::fs::File::open(path) {
            let advice = "check the path, which is taken from the current directory";
            return Err(explain::at(&place, format!("cannot be read; {advice}")).with_source(error));
        }
        let nested = self.profile.is_some();
        let extension = path.extension().and_then(|extension| extension.to_str());
        Ok(match extension {
            Some("toml") if nested => figment.merge(Toml::file_exact(path).nested()),
            Some("toml") => figment.merge(Toml::file_exact(path)),
            Some("yaml" | "yml") if nested => figment.merge(Yaml::file_exact(path).nested()),
            Some("yaml" | "yml") => figment.merge(Yaml::file_exact(path)),
            Some("json") if nested => figment.merge(Json::file_exact(path).nested()),
            Some("json") => figment.merge(Json::file_exact(path)),
            _ => {
                let problem = "the extension tells nothing; name the file .toml, .yaml or .json";
                return Err(explain::at(&place, problem));
            }
        })
    }
}

fn check_profile(figment: &Figment, wanted: &str, files: &[PathBuf]) -> Result<()> {
    // A file that cannot be parsed has no profiles; `extract` tells that error.
    let there: Vec<&str> = figment
        .profiles()
        .map(|profile| profile.as_str().as_str())
        .collect();
    if figment.data().is_err() || there.iter().any(|name| name.eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let files: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let hint = did_you_mean(wanted, there.iter().copied());
    Err(explain::at(
        &format!("in {}", files.join(", ")),
        format!(
            "there is no profile `{wanted}`{hint}; write a table `[{wanted}]` (there: {})",
            there.join(", ")
        ),
    ))
}

impl Config {
    /// Reads the settings from any figment or provider, for programs that use figment themselves.
    ///
    /// # Errors
    /// `InvalidConfig` with the source, the setting, and what to write.
    pub fn extract(provider: impl Provider) -> Result<Self> {
        Self::extract_figment(&Figment::from(provider))
    }

    fn extract_figment(figment: &Figment) -> Result<Self> {
        let mut config: Self = figment.extract().map_err(explain::explain)?;
        config.origin = Origin::of(figment);
        config.check()?;
        Ok(config)
    }
}

/// A configuration is a source of settings in turn: merge over it what should replace its settings.
impl Provider for Config {
    fn metadata(&self) -> Metadata {
        Metadata::named("lock_manager::Config")
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Serialized::defaults(self).data()
    }
}

/// Where settings were made, by their full names.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin(BTreeMap<&'static str, String>);

/// The settings that are checked only when the backends are known.
const CHECKED_LATER: [&str; 10] = [
    "backend",
    "deadlock",
    "namespace",
    "routes",
    "threading",
    "file",
    "file.directory",
    "sqlite",
    "redis",
    "etcd",
];

impl Origin {
    fn of(figment: &Figment) -> Self {
        let place = |setting: &'static str| {
            let metadata = figment.find_metadata(setting)?;
            let path: Vec<String> = setting.split('.').map(str::to_owned).collect();
            Some((setting, explain::place(Some(metadata), &path)))
        };
        Self(CHECKED_LATER.into_iter().filter_map(place).collect())
    }

    pub(super) fn place(&self, setting: &str) -> String {
        self.0
            .get(setting)
            .cloned()
            .unwrap_or_else(|| format!("`{setting}`"))
    }
}
