//! The kinds of values that a file has besides TOML's own. Each says what it allows when it refuses.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::setup::Place;
use crate::units::{size, time};

/// A length of time: a number and a unit, such as `"5s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// An amount of memory or data: octets, or a number and a unit, such as `"1GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// A host and a port, such as `"0.0.0.0:5672"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) Place);

/// A password, or a file with one in it.
pub(crate) type File = PathBuf;

const SPAN: &str = "a length of time: a number and one of ms, s, m, h, d, such as \"5s\"";
const SIZE: &str =
    "a size: a number of octets, or a number and one of B, kB, MB, GB, KiB, MiB, GiB, such as \"64MiB\"";
const ADDRESS: &str = "a host and a port, such as \"0.0.0.0:5672\" or \"[::]:5671\"";

/// Words of a file, understood by a function.
struct Words<F> {
    expected: &'static str,
    read: F,
}

impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for Words<F> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        // Numbers alone are read where no unit is needed.
        (self.read)(&number.to_string()).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        from.deserialize_any(Words { expected: SPAN, read: |text: &str| time::read(text).map(Span) })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time::in_words(self.0))
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": SPAN, "type": ["string", "integer"], "pattern": "^[0-9]+ ?(ms|s|m|h|d)$|^0$", "maximum": 0 })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Size, D::Error> {
        from.deserialize_any(Words { expected: SIZE, read: |text: &str| size::read(text).map(Size) })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&size::in_words(self.0).replace(' ', ""))
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = "^[0-9]+ ?([kKmMgGtT]([iI])?[bB]|[bB])?$";
        json_schema!({ "description": SIZE, "type": ["string", "integer"], "pattern": pattern, "minimum": 0 })
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Address, D::Error> {
        from.deserialize_any(Words { expected: ADDRESS, read: |text: &str| place(text).map(Address) })
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": ADDRESS, "type": "string", "pattern": "^(\\[[0-9a-fA-F:.]+\\]|[A-Za-z0-9_.-]+):[0-9]{1,5}$" })
    }
}

/// Reads a host and a port.
pub(crate) fn place(text: &str) -> Option<Place> {
    let (name, number) = text.rsplit_once(':')?;
    let port = number.parse().ok().filter(|_| !number.starts_with('+'))?;
    if name.contains(':') && !name.starts_with('[') {
        return None; // an IPv6 address needs brackets here, or it is not clear where it ends
    }
    let host = crate::options::host(name)?;
    Some(Place { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_hosts_and_ports() {
        for (text, host, port) in
            [("0.0.0.0:5672", "0.0.0.0", 5672), ("[::]:5671", "::", 5671), ("localhost:0", "localhost", 0)]
        {
            assert_eq!(place(text), Some(Place { host: host.into(), port }), "{text}");
        }
        for text in ["", "5672", ":5672", "::1:5672", "host:", "host:65536", "host:+1", "[host]:1", "a b:1"] {
            assert_eq!(place(text), None, "{text}");
        }
    }
}
