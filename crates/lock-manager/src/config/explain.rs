//! What is wrong with a setting, where, and what to write.

use figment::Metadata;
use figment::error::{Actual, Kind};
use lock_core::{Error, ErrorKind};

use super::loader::{ENV_PREFIX, ENV_SEPARATOR};
use crate::kind::BackendKind;
use crate::nearest::did_you_mean;

/// An `InvalidConfig` error about one place.
pub(super) fn at(place: &str, problem: impl AsRef<str>) -> Error {
    let message = format!("{place}: {}", problem.as_ref());
    Error::new(ErrorKind::InvalidConfig, message)
}

/// Turns the errors of the configuration library into one of ours, on one line.
pub(super) fn explain(error: figment::Error) -> Error {
    let problems: Vec<String> = error
        .into_iter()
        .map(|error| {
            let place = place(error.metadata.as_ref(), &error.path);
            format!("{place}: {}", problem(&error))
        })
        .collect();
    Error::new(ErrorKind::InvalidConfig, problems.join("; and "))
}

/// ``in locks.toml, `redis.ttl` ``, or ``environment variable `LOCK_REDIS__TTL` ``.
pub(super) fn place(metadata: Option<&Metadata>, path: &[String]) -> String {
    let setting = path.join(".");
    let file = metadata.and_then(|metadata| metadata.source.as_ref()?.file_path());
    match (file, metadata) {
        (Some(file), _) if path.is_empty() => format!("in {}", file.display()),
        (Some(file), _) => format!("in {}, `{setting}`", file.display()),
        (None, Some(metadata)) if metadata.name.contains("environment") => {
            let variable = path.join(ENV_SEPARATOR).to_uppercase();
            format!("environment variable `{ENV_PREFIX}{variable}`")
        }
        _ if path.is_empty() => "in the configuration".to_owned(),
        _ => format!("`{setting}`"),
    }
}

fn problem(error: &figment::Error) -> String {
    let secret = is_secret(&error.path);
    let found = |actual: &Actual| match secret {
        true => "a value that is not shown here".to_owned(),
        false => show(actual),
    };
    match &error.kind {
        Kind::UnknownField(name, _) if error.path.len() <= 1 && is_profile(name) => format!(
            "`{name}` looks like a profile, but none was chosen; choose one with \
             `Config::loader().profile(..)`, or move its settings to the top"
        ),
        Kind::UnknownField(name, known) => format!(
            "there is no setting `{}`{}; {}",
            name.escape_debug(),
            did_you_mean(name, known.iter().copied()),
            choices("the settings here are", known)
        ),
        Kind::UnknownVariant(name, known) => format!(
            "`{}` is none of the choices{}; {}",
            name.escape_debug(),
            did_you_mean(name, known.iter().copied()),
            choices("write one of", known)
        ),
        Kind::InvalidType(actual, expected) if expects_text(expected) => {
            format!("found {}, write text in quotes", found(actual))
        }
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("found {}, write {}", found(actual), in_words(expected))
        }
        Kind::MissingField(name) => format!("`{name}` is missing; write it"),
        Kind::DuplicateField(name) => format!("`{name}` stands there twice; keep one"),
        // At the top of a file with profiles.
        Kind::Message(message) if error.path.is_empty() && message.contains("expected a map") => {
            "with a profile chosen, the top has nothing but one table per profile, such as \
             `[default]`; move the other settings into one"
                .to_owned()
        }
        // Parsers tell where in several lines, with a drawing between them.
        Kind::Message(message) if error.path.is_empty() => {
            let lines = message.lines().map(str::trim);
            let telling = lines.filter(|line| !line.is_empty() && !line.contains('|'));
            telling.collect::<Vec<_>>().join(", ")
        }
        Kind::Message(message) => message.clone(),
        other => other.to_string(),
    }
}

fn choices(intro: &str, known: &[&str]) -> String {
    match known {
        [] => "nothing can be set here".to_owned(),
        known => format!("{intro} {}", known.join(", ")),
    }
}

fn show(actual: &Actual) -> String {
    match actual {
        Actual::Str(text) => format!("`{}`", text.escape_debug()),
        Actual::Unsigned(number) => format!("the number {number}"),
        Actual::Signed(number) => format!("the number {number}"),
        Actual::Float(number) => format!("the number {number}"),
        Actual::Bool(truth) => format!("`{truth}`"),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

fn expects_text(expected: &str) -> bool {
    expected == "a string"
}

fn is_profile(name: &str) -> bool {
    matches!(name, "default" | "global")
}

/// The expectations of the deserializer that only a Rust programmer would understand.
fn in_words(expected: &str) -> &str {
    match expected {
        "a nonzero u32" => "a whole number from 1 on",
        "u32" | "u64" | "usize" => "a whole number from 0 on",
        "i8" => "a whole number from -128 to 127",
        "a map" => "a table",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// Settings whose value may not be shown, because it is a secret or may contain one. What stands in
/// place of a backend's section may be its address.
fn is_secret(path: &[String]) -> bool {
    let words = ["password", "secret", "token", "url", "endpoint", "username"];
    let is_named_so = |name: &String| words.iter().any(|word| name.contains(word));
    let is_section = path.len() == 1 && BackendKind::from_name(&path[0]).is_some();
    is_section || path.iter().any(is_named_so)
}
