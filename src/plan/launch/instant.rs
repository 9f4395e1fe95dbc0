//! Instants in a format that does not describe itself: seconds and nanoseconds, exactly. (jiff's own helpers write an
//! optional instant without saying that there is one, which only a format like JSON can read back.)

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

type Parts = (i64, i32);

fn parts(at: Timestamp) -> Parts {
    (at.as_second(), at.subsec_nanosecond())
}

fn whole<E: Error>((second, nanosecond): Parts) -> Result<Timestamp, E> {
    Timestamp::new(second, nanosecond).map_err(E::custom)
}

/// `#[serde(with = "required")]` of a Timestamp.
pub mod required {
    use super::{Deserialize, Deserializer, Parts, Serialize, Serializer, Timestamp, parts, whole};

    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        parts(*at).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        whole(Parts::deserialize(deserializer)?)
    }
}

/// `#[serde(with = "optional")]` of an `Option<Timestamp>`.
pub mod optional {
    use super::{Deserialize, Deserializer, Parts, Serialize, Serializer, Timestamp, parts, whole};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        at.map(parts).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Option::<Parts>::deserialize(deserializer)?.map(whole).transpose()
    }
}
