/// When a call gives its permit back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Release {
    /// At its real end: the last byte of the body, its trailers, or its drop.
    #[default]
    BodyEnd,
    /// When the response head is there, under gRPC too: a stream may be opened long before its first message. Bodies then stream without
    /// a limit.
    Head,
}
