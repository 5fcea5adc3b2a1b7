//! TOML values to types. What goes wrong says where: the way to the value and its place in the text; `"none"` takes a value away
//! from any field that may be without one.

use super::table::did_you_mean;
use serde::{
    Deserializer,
    de::{self, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor, value::StrDeserializer},
};
use std::{fmt, ops::Range};
use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

/// What an optional field is set to where it is to have no value.
pub(crate) const NONE: &str = "none";

/// From a table to a value below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// What stands in the way of a type.
#[derive(Debug)]
pub(super) struct Error {
    pub(super) what: What,
    /// From the outermost table on.
    pub(super) way: Vec<Step>,
    pub(super) span: Option<Range<usize>>,
}

#[derive(Debug, PartialEq)]
pub(super) enum What {
    /// The name, and those that are known.
    Unknown(String, &'static [&'static str]),
    Missing(&'static str),
    /// What is allowed, in place of this value.
    Wrong(String),
    /// A whole sentence of the type's own.
    Said(String),
}

impl Error {
    fn new(what: What) -> Self {
        Self { what, way: Vec::new(), span: None }
    }

    fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }

    fn within(mut self, step: Step) -> Self {
        self.way.insert(0, step);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Unknown(..) => f.write_str("unknown"),
            What::Missing(field) => write!(f, "`{field}` is missing"),
            What::Wrong(allowed) => write!(f, "allowed: {allowed}"),
            What::Said(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(What::Said(text.to_string()))
    }

    fn invalid_type(_: Unexpected<'_>, allowed: &dyn Expected) -> Self {
        Self::new(What::Wrong(plain(&allowed.to_string())))
    }

    fn invalid_value(value: Unexpected<'_>, allowed: &dyn Expected) -> Self {
        // Of a number its type alone is asked here: which ones a field may have, is said once it is one.
        let most = match allowed.to_string().as_str() {
            "u8" => u64::from(u8::MAX),
            "u16" => u64::from(u16::MAX),
            "u32" => u64::from(u32::MAX),
            "u64" | "usize" => u64::MAX,
            other => return Self::new(What::Wrong(plain(other))),
        };
        Self::new(What::Wrong(match value {
            Unexpected::Signed(..0) => "a whole number, and no negative one".to_owned(),
            _ => format!("a whole number, at most {most}"),
        }))
    }

    fn unknown_variant(name: &str, allowed: &'static [&'static str]) -> Self {
        let names: Vec<_> = allowed.iter().map(|name| format!("{name:?}")).collect();
        let similar = did_you_mean(name, allowed.iter().copied()).map(|similar| format!("; {similar}"));
        Self::new(What::Wrong(names.join(", ") + &similar.unwrap_or_default()))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::Unknown(name.to_owned(), known))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(What::Missing(field))
    }
}

/// Rust's names of types mean nothing to those who write configs.
fn plain(allowed: &str) -> String {
    // Of "an address, allowed: an IP and a port" the second half.
    let allowed = allowed.split_once("allowed: ").map_or(allowed, |(_, allowed)| allowed);
    match allowed {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "f64" => "a number",
        "a string" => "a text, in quotes",
        "path string" => "a path, in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list, as in [..]",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other.strip_prefix("enum ").map_or(other, |_| "one of its names, or a table with one of them"),
    }
    .to_owned()
}

/// Reads a value.
pub(super) struct Value<'a, 't>(pub(super) &'a Spanned<DeValue<'t>>);

/// Reads a table.
pub(super) struct Table<'a, 't>(pub(super) &'a DeTable<'t>);

impl<'a, 't> Value<'a, 't> {
    fn located<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| error.at(self.0.span()))
    }
}

impl<'de> Deserializer<'de> for Value<'_, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result = match self.0.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(number) => integer(number, visitor),
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(de::Error::custom("a number that cannot be read, allowed: one like 0.5")),
            },
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Datetime(_) => Err(de::Error::invalid_type(Unexpected::Other("date"), &visitor)),
            DeValue::Array(list) => visitor.visit_seq(Elements { list, next: 0 }),
            DeValue::Table(table) => Table(table).deserialize_any(visitor),
        };
        self.located(result)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.get_ref().as_str() == Some(NONE) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let names = || variants.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let result = match self.0.get_ref() {
            DeValue::String(name) => visitor.visit_enum(IntoDeserializer::<Error>::into_deserializer(name.as_ref())),
            DeValue::Table(table) => match table.iter().next().filter(|_| table.len() == 1) {
                Some((name, value)) => visitor.visit_enum(Variant { name: name.get_ref(), value }),
                None => Err(Error::new(What::Wrong(format!("a table with one of {}", names())))),
            },
            _ => Err(Error::new(What::Wrong(names()))),
        };
        self.located(result)
    }

    serde::forward_to_deserialize_any! {
        bool u8 u16 u32 u64 i8 i16 i32 i64 u128 i128 f32 f64 char str string seq bytes byte_buf map unit
        ignored_any unit_struct tuple_struct tuple identifier struct
    }
}

impl<'de> Deserializer<'de> for Table<'_, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { rest: self.0.iter(), value: None })
    }

    serde::forward_to_deserialize_any! {
        bool u8 u16 u32 u64 i8 i16 i32 i64 u128 i128 f32 f64 char str string seq bytes byte_buf map unit option
        newtype_struct ignored_any unit_struct tuple_struct tuple enum identifier struct
    }
}

fn integer<'de, V: Visitor<'de>>(number: &DeInteger<'_>, visitor: V) -> Result<V::Value, Error> {
    let (digits, radix) = (number.as_str(), number.radix());
    if let Ok(number) = i64::from_str_radix(digits, radix) {
        visitor.visit_i64(number)
    } else if let Ok(number) = u64::from_str_radix(digits, radix) {
        visitor.visit_u64(number)
    } else {
        Err(de::Error::custom(format_args!("{number} is too large, allowed: a number of 64 bits")))
    }
}

struct Elements<'a, 't> {
    list: &'a [Spanned<DeValue<'t>>],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Elements<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(value) = self.list.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Value(value)).map(Some).map_err(|error| error.at(value.span()).within(Step::Index(index)))
    }
}

struct Entries<'a, 't, I> {
    rest: I,
    value: Option<(&'a str, &'a Spanned<DeValue<'t>>)>,
}

impl<'de, 'a, 't: 'a, I> de::MapAccess<'de> for Entries<'a, 't, I>
where
    I: Iterator<Item = (&'a Spanned<std::borrow::Cow<'t, str>>, &'a Spanned<DeValue<'t>>)>,
{
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        let name = key.get_ref().as_ref();
        self.value = Some((name, value));
        let read = seed.deserialize(StrDeserializer::<Error>::new(name));
        read.map(Some).map_err(|error| error.at(key.span()).within(Step::Key(name.to_owned())))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (name, value) = self.value.take().expect("a value is asked for after its key");
        seed.deserialize(Value(value)).map_err(|error| error.at(value.span()).within(Step::Key(name.to_owned())))
    }
}

/// `{ name = value }` for a variant that holds a value.
struct Variant<'a, 't> {
    name: &'a str,
    value: &'a Spanned<DeValue<'t>>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        Ok((seed.deserialize(StrDeserializer::<Error>::new(self.name))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Err(Error::new(What::Wrong(format!("{:?} alone, without a table", self.name))))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Value(self.value))
            .map_err(|error| error.at(self.value.span()).within(Step::Key(self.name.to_owned())))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        Value(self.value).deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        Value(self.value).deserialize_any(visitor)
    }
}

/// The fields of a struct that derives `Deserialize`.
pub(super) fn fields_of<T: for<'de> de::Deserialize<'de>>() -> &'static [&'static str] {
    struct Probe;
    impl<'de> Deserializer<'de> for Probe {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::new(What::Unknown(String::new(), &[])))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            Err(Error::new(What::Unknown(String::new(), fields)))
        }

        serde::forward_to_deserialize_any! {
            bool u8 u16 u32 u64 i8 i16 i32 i64 u128 i128 f32 f64 char str string seq bytes byte_buf map unit option
            newtype_struct ignored_any unit_struct tuple_struct tuple enum identifier
        }
    }
    match T::deserialize(Probe) {
        Err(Error { what: What::Unknown(_, fields), .. }) => fields,
        _ => &[],
    }
}
