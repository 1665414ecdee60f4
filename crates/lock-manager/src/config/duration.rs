//! Durations as strings: `"30s"`, `"5m"`, `"1h 30m"`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::ser::Serializer;

#[expect(clippy::ref_option, reason = "serde's signature")]
pub(super) fn serialize<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.collect_str(&humantime::format_duration(*duration)),
        None => serializer.serialize_none(),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    deserializer.deserialize_str(Text).map(Some)
}

/// The same, without zero.
pub(super) mod positive {
    use super::{Deserializer, Duration, de};

    pub(in crate::config) use super::serialize;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        match super::deserialize(deserializer)? {
            Some(Duration::ZERO) => Err(de::Error::custom(
                "zero makes no sense here; write a longer duration, or leave the setting out",
            )),
            duration => Ok(duration),
        }
    }
}

struct Text;

const EXPECTED: &str = "a duration such as \"30s\", \"5m\" or \"250ms\"";

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
