//! Load shedding for Tower services.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod limit;
pub mod pressure;
pub mod rate;
pub mod throttle;
