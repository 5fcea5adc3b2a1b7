//! What serialises, as a tree that keeps the order of fields, and the fields without a value.

use super::{print::text, value::NONE};
use serde::{
    Serialize, Serializer,
    ser::{self, Impossible},
};
use std::fmt::{self, Display};

pub(super) enum Node {
    /// As TOML writes it.
    Value(String),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

/// The tree of a config.
pub(super) fn tree_of(value: &impl Serialize) -> Node {
    value.serialize(Tree).expect("a config is made of tables, lists, texts, numbers and truths")
}

/// It is none of what a config is made of.
#[derive(Debug)]
struct Foreign(String);

impl Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Foreign {}

impl ser::Error for Foreign {
    fn custom<T: Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

struct Tree;

macro_rules! as_written {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<Node, Foreign> {
            Ok(Node::Value(value.to_string()))
        }
    )*};
}

impl Serializer for Tree {
    type Ok = Node;
    type Error = Foreign;
    type SerializeSeq = List;
    type SerializeTuple = Impossible<Node, Foreign>;
    type SerializeTupleStruct = Impossible<Node, Foreign>;
    type SerializeTupleVariant = Impossible<Node, Foreign>;
    type SerializeMap = Table;
    type SerializeStruct = Table;
    type SerializeStructVariant = Impossible<Node, Foreign>;

    as_written! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64
    }

    fn serialize_f32(self, value: f32) -> Result<Node, Foreign> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Node, Foreign> {
        // With a point, as TOML tells them from whole numbers.
        Ok(Node::Value(format!("{value:?}")))
    }

    fn serialize_char(self, value: char) -> Result<Node, Foreign> {
        Ok(Node::Value(text(value.encode_utf8(&mut [0; 4]))))
    }

    fn serialize_str(self, value: &str) -> Result<Node, Foreign> {
        Ok(Node::Value(text(value)))
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<Node, Foreign> {
        Err(Foreign("bytes".to_owned()))
    }

    fn serialize_none(self) -> Result<Node, Foreign> {
        self.serialize_str(NONE)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Node, Foreign> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Node, Foreign> {
        self.serialize_none()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Node, Foreign> {
        self.serialize_none()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<Node, Foreign> {
        self.serialize_str(name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Node, Foreign> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<Node, Foreign> {
        Ok(Node::Table(vec![(name.to_owned(), value.serialize(self)?)]))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List, Foreign> {
        Ok(List(Vec::new()))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Foreign> {
        Err(Foreign("a tuple".to_owned()))
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Foreign> {
        Err(Foreign(name.to_owned()))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Foreign> {
        Err(Foreign(name.to_owned()))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Table, Foreign> {
        Ok(Table { entries: Vec::new(), key: None })
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Table, Foreign> {
        self.serialize_map(Some(len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Foreign> {
        Err(Foreign(name.to_owned()))
    }
}

struct List(Vec<Node>);

impl ser::SerializeSeq for List {
    type Ok = Node;
    type Error = Foreign;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Foreign> {
        self.0.push(value.serialize(Tree)?);
        Ok(())
    }

    fn end(self) -> Result<Node, Foreign> {
        Ok(Node::List(self.0))
    }
}

struct Table {
    entries: Vec<(String, Node)>,
    key: Option<String>,
}

impl ser::SerializeMap for Table {
    type Ok = Node;
    type Error = Foreign;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Foreign> {
        // A key is a text: what serde_json writes of it, it reads back.
        let written = serde_json::to_value(key).map_err(|error| Foreign(error.to_string()))?;
        let key = written.as_str().ok_or_else(|| Foreign("a key that is no text".to_owned()))?;
        self.key = Some(key.to_owned());
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Foreign> {
        let key = self.key.take().expect("a key comes before its value");
        self.entries.push((key, value.serialize(Tree)?));
        Ok(())
    }

    fn end(self) -> Result<Node, Foreign> {
        Ok(Node::Table(self.entries))
    }
}

impl ser::SerializeStruct for Table {
    type Ok = Node;
    type Error = Foreign;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Foreign> {
        self.entries.push((name.to_owned(), value.serialize(Tree)?));
        Ok(())
    }

    fn end(self) -> Result<Node, Foreign> {
        Ok(Node::Table(self.entries))
    }
}
