use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData};

/// A layer's table, or `false`: the layer lets every call through and measures nothing.
#[derive(Clone, Debug)]
pub(crate) struct Layer<C> {
    pub(crate) on: bool,
    pub(crate) config: C,
}

impl<C> Layer<C> {
    pub(crate) fn on(config: C) -> Self {
        Self { on: true, config }
    }
}

impl<C: Default> Default for Layer<C> {
    fn default() -> Self {
        Self::on(C::default())
    }
}

impl<'de, C: Default + Deserialize<'de>> Deserialize<'de> for Layer<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TableOrFalse(PhantomData))
    }
}

struct TableOrFalse<C>(PhantomData<C>);

impl<'de, C: Default + Deserialize<'de>> Visitor<'de> for TableOrFalse<C> {
    type Value = Layer<C>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table, or `false` to switch the layer off")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Layer<C>, E> {
        if on {
            Err(E::custom(
                "`true` is not needed: a layer that is not written has its defaults, allowed: a table, or `false`",
            ))
        } else {
            Ok(Layer { on, config: C::default() })
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Layer<C>, A::Error> {
        C::deserialize(MapAccessDeserializer::new(map)).map(Layer::on)
    }
}

impl<C: Serialize> Serialize for Layer<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.on { self.config.serialize(serializer) } else { serializer.serialize_bool(false) }
    }
}
