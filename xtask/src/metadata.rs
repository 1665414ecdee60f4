//! The part of `cargo metadata` that the checks need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command::Program;

/// The crates named `lock-*` that are not backends; every other one is.
pub(crate) const NOT_BACKENDS: &[&str] = &["lock-core", "lock-testkit", "lock-manager", "lock-cli"];

#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) target_directory: PathBuf,
    pub(crate) workspace_root: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) manifest_path: PathBuf,
    pub(crate) features: BTreeMap<String, Vec<String>>,
    pub(crate) targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    kind: Vec<String>,
}

impl Metadata {
    pub(crate) fn load() -> Result<Self> {
        let json = Program::new("cargo metadata --locked --no-deps --format-version 1").read()?;
        serde_json::from_slice(&json).context("cargo metadata printed something unexpected")
    }

    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    pub(crate) fn package_at(&self, manifest: &Path) -> Result<&Package> {
        let mut packages = self.packages.iter();
        let package = packages.find(|package| package.manifest_path == manifest);
        package.with_context(|| format!("no package at {}", manifest.display()))
    }

    /// The backends that have a conformance test, by the name their reports carry.
    pub(crate) fn tested_backends(&self) -> Vec<&str> {
        self.packages
            .iter()
            .filter(|package| package.targets.iter().any(|t| t.is("test", "conformance")))
            .filter_map(|package| backend_name(&package.name))
            .collect()
    }

    /// The reports that conformance tests write: `redis` for the target `conformance` of
    /// `lock-redis`, `redis-cluster` for its target `conformance_cluster`.
    pub(crate) fn expected_reports(&self) -> Vec<String> {
        let mut reports = Vec::new();
        for package in &self.packages {
            let Some(backend) = backend_name(&package.name) else {
                continue;
            };
            let targets = package.targets_of("test");
            let suites = targets.filter_map(|target| target.strip_prefix("conformance"));
            reports.extend(suites.map(|suite| format!("{backend}{}", suite.replace('_', "-"))));
        }
        reports
    }
}

impl Package {
    pub(crate) fn directory(&self) -> Result<&Path> {
        let directory = self.manifest_path.parent();
        directory.with_context(|| format!("package {} has no directory", self.name))
    }

    pub(crate) fn examples(&self) -> impl Iterator<Item = &str> {
        self.targets_of("example")
    }

    pub(crate) fn programs(&self) -> impl Iterator<Item = &str> {
        self.targets_of("bin")
    }

    fn targets_of(&self, kind: &str) -> impl Iterator<Item = &str> {
        self.targets
            .iter()
            .filter(move |target| target.kind.iter().any(|found| found == kind))
            .map(|target| target.name.as_str())
    }

    /// The features that somebody turns on by name; `default` is what is on without it.
    pub(crate) fn named_features(&self) -> impl Iterator<Item = &str> {
        self.features
            .keys()
            .map(String::as_str)
            .filter(|feature| *feature != "default")
    }
}

impl Target {
    fn is(&self, kind: &str, name: &str) -> bool {
        self.name == name && self.kind.iter().any(|k| k == kind)
    }
}

/// `lock-file` → `file`; nothing for a crate that is no backend.
pub(crate) fn backend_name(package: &str) -> Option<&str> {
    if NOT_BACKENDS.contains(&package) {
        return None;
    }
    package.strip_prefix("lock-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        let json = r#"{
            "target_directory": "target", "workspace_root": ".",
            "packages": [
                {"name": "lock-file", "features": {"default": ["x"], "x": []},
                 "targets": [{"name": "conformance", "kind": ["test"]},
                             {"name": "conformance_twice", "kind": ["test"]},
                             {"name": "quickstart", "kind": ["example"]}]},
                {"name": "lock-testkit", "features": {},
                 "targets": [{"name": "conformance", "kind": ["test"]}]},
                {"name": "lock-untested", "features": {}, "targets": []}
            ]}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn backends_are_the_crates_with_a_conformance_test() {
        assert_eq!(sample().tested_backends(), ["file"]);
        assert_eq!(sample().expected_reports(), ["file", "file-twice"]);
    }

    #[test]
    fn examples_and_features_are_listed_by_name() {
        let metadata = sample();
        let package = metadata.package("lock-file").unwrap();
        assert_eq!(package.examples().collect::<Vec<_>>(), ["quickstart"]);
        assert_eq!(package.named_features().collect::<Vec<_>>(), ["x"]);
    }
}
