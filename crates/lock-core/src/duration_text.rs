//! Durations in configuration files, as people write them: `"30s"`, `"250ms"`, `"1h 30m"`.
//!
//! For fields of settings: `#[serde(with = "lock_core::duration_text")]` on a [`Duration`],
//! [`optional`] and [`positive`] on an `Option<Duration>`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::ser::Serializer;

const EXPECTED: &str = "a duration such as \"30s\", \"5m\" or \"250ms\"";

/// Writes it as text that [`deserialize`] reads.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// Reads a duration with its unit.
///
/// # Errors
/// When the text is no duration, or no text: a bare number would leave its unit to be guessed.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Text)
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text)
            .map_err(|_| E::invalid_value(Unexpected::Str(text), &EXPECTED))
    }
}

/// The same for a setting that may be left out.
pub mod optional {
    use serde::Deserialize;

    use super::{Deserializer, Duration, Serializer};

    /// Writes it as text that [`deserialize`] reads.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a duration with its unit, or nothing.
    ///
    /// # Errors
    /// As [`super::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Text(#[serde(with = "super")] Duration);
        let duration = Option::deserialize(deserializer)?;
        Ok(duration.map(|Text(duration)| duration))
    }
}

/// The same for a setting that may be left out, and that zero makes no sense for.
pub mod positive {
    use super::{Deserializer, Duration, de};

    pub use super::optional::serialize;

    /// Reads a duration with its unit, or nothing.
    ///
    /// # Errors
    /// As [`super::deserialize`], and when it is zero.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        match super::optional::deserialize(deserializer)? {
            Some(Duration::ZERO) => Err(de::Error::custom(
                "zero makes no sense here; write a longer duration, or leave the setting out",
            )),
            duration => Ok(duration),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Settings {
        #[serde(with = "super")]
        limit: Duration,
        #[serde(default, with = "super::positive")]
        ttl: Option<Duration>,
    }

    fn read(json: &str) -> Result<Settings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_written_is_read_again() {
        for ttl in [None, Some(Duration::from_secs(5400))] {
            let limit = Duration::from_millis(20);
            let settings = Settings { limit, ttl };
            let json = serde_json::to_string(&settings).unwrap();
            assert_eq!(read(&json).unwrap(), settings, "{json}");
        }
        assert_eq!(read(r#"{"limit":"1h 30m"}"#).unwrap().ttl, None);
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_to_write() {
        for wrong in [
            r#"{"limit":20}"#,
            r#"{"limit":"soon"}"#,
            r#"{"limit":"1s","ttl":3}"#,
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains("expected a duration such as"), "{error}");
        }
        let error = read(r#"{"limit":"1s","ttl":"0s"}"#).unwrap_err();
        assert!(error.contains("leave the setting out"), "{error}");
    }
}
