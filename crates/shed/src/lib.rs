//! Load shedding for Tower services.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod limit;
