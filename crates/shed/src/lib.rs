//! Load shedding for Tower services.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod limit;

#[cfg_attr(not(test), expect(dead_code, reason = "the shedder that waits in it is not here yet"))]
mod line;
