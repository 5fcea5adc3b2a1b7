//! Values that a config writes as texts: addresses, networks, methods, sizes.

use http::{HeaderName, Method, uri::Authority};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// What a config can write as a text.
pub(crate) trait Text: Sized {
    /// What it is, and how it is written: "an address, allowed: ..".
    const WHAT: &'static str;

    fn read(text: &str) -> Option<Self>;

    fn write(&self) -> String;
}

/// `#[serde(with = "one")]`
pub(crate) mod one {
    use super::{Deserializer, Serializer, Text, Texted};
    use serde::Serialize;

    pub(crate) fn serialize<T: Text + Clone, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        Texted(value.clone()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(super::OneText(std::marker::PhantomData))
    }
}

/// `#[serde(with = "many")]`: a list of them, or one alone.
pub(crate) mod many {
    use super::{Deserializer, Serializer, Text, Texted};
    use serde::{
        Deserialize,
        de::{Error, SeqAccess, Visitor},
    };
    use std::{fmt, marker::PhantomData};

    pub(crate) fn serialize<T: Text + Clone, S: Serializer>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().cloned().map(Texted))
    }

    pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(OneOrMany(PhantomData))
    }

    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: Text> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}, or a list of them", T::WHAT)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
            super::read(text).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(Texted(one)) = list.next_element()? {
                all.push(one);
            }
            Ok(all)
        }
    }

    impl<'de, T: Text> Deserialize<'de> for Texted<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            super::one::deserialize(deserializer).map(Texted)
        }
    }
}

struct OneText<T>(std::marker::PhantomData<T>);

impl<T: Text> serde::de::Visitor<'_> for OneText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        read(text)
    }
}

struct Texted<T>(T);

impl<T: Text> Serialize for Texted<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.write())
    }
}

fn read<T: Text, E: Error>(text: &str) -> Result<T, E> {
    T::read(text).ok_or_else(|| E::custom(format!("{text:?} is not {}", T::WHAT)))
}

impl Text for SocketAddr {
    const WHAT: &'static str = "an address, allowed: an IP and a port, as in \"127.0.0.1:8080\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// An endpoint.
impl Text for Authority {
    const WHAT: &'static str = "an endpoint, allowed: host:port, as in \"127.0.0.1:9001\"";

    fn read(text: &str) -> Option<Self> {
        let authority = text.parse::<Self>().ok()?;
        let fits = authority.port_u16().is_some_and(|port| port > 0) && !authority.as_str().contains('@');
        fits.then_some(authority)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Text for IpNet {
    const WHAT: &'static str = "a network, allowed: an IP, or one with a prefix length, as in \"10.0.0.0/8\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(Self::from))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Text for Method {
    const WHAT: &'static str = "a method, allowed: its name in capitals, as in \"GET\"";

    fn read(text: &str) -> Option<Self> {
        // Methods are case-sensitive, and nobody means a lower-case one.
        let fits = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') && text != "CONNECT";
        text.parse().ok().filter(|_| fits)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Text for HeaderName {
    const WHAT: &'static str = "the name of a header, allowed: one like \"x-priority\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// The hosts a route is for: a name, `*.` and a name (any name below it), or any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    Exact(String),
    /// With the dot it begins with.
    Below(String),
}

impl Text for Host {
    const WHAT: &'static str = "a host, allowed: a name without a port, as in \"api.example.com\" or \"*.example.com\"";

    fn read(text: &str) -> Option<Self> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let authority: Authority = name.parse().ok()?;
        if authority.host() != name || name.contains('*') {
            return None;
        }
        let name = name.to_ascii_lowercase();
        Some(if below { Self::Below(format!(".{name}")) } else { Self::Exact(name) })
    }

    fn write(&self) -> String {
        match self {
            Self::Exact(name) => name.clone(),
            Self::Below(name) => format!("*{name}"),
        }
    }
}

/// A number of bytes: a number, or one with a unit, `"64KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub(crate) u64);

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS[..3].iter().rev().find(|(_, size)| self.0 > 0 && self.0.is_multiple_of(*size));
        match unit {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, as in \"64KiB\"")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Bytes, E> {
                Ok(Bytes(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Bytes, E> {
                number.try_into().map(Bytes).map_err(|_| wrong(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let (number, unit) = text.split_at(digits);
                let size = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, size)| *size);
                let bytes = number.parse::<u64>().ok().zip(size).and_then(|(n, size)| n.checked_mul(size));
                bytes.map(Bytes).ok_or_else(|| wrong(format_args!("{text:?}")))
            }
        }
        fn wrong<E: Error>(what: impl fmt::Display) -> E {
            E::custom(format!(
                "{what} is not a size, allowed: a number and a unit (B, KiB, MiB, GiB, kB, MB, GB), as in \"64KiB\""
            ))
        }
        deserializer.deserialize_any(Visitor)
    }
}
