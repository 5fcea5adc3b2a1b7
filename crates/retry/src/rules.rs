use crate::{Backoff, RetryConfig};
use std::time::Duration;

/// A config as decisions read it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "what HTTP alone asks for"))]
pub(crate) struct Rules {
    pub(crate) max_attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) max_retry_after: Duration,
    pub(crate) min_attempt: Duration,
    pub(crate) grpc_peek: bool,
    /// One bit per status: 500 to 599, and then 408 and 429.
    statuses: u128,
    /// One bit per code.
    grpc_codes: u32,
}

impl Rules {
    pub(crate) fn new(config: &RetryConfig) -> Self {
        Self {
            max_attempts: config.max_attempts,
            backoff: config.backoff,
            max_retry_after: config.max_retry_after,
            min_attempt: config.min_attempt,
            grpc_peek: config.grpc_peek,
            statuses: config.statuses.iter().fold(0, |bits, status| bits | status_bit(*status)),
            grpc_codes: config.grpc_codes.iter().fold(0, |bits, code| bits | code_bit(*code)),
        }
    }

    #[cfg(feature = "http")]
    pub(crate) fn retries_status(&self, status: u16) -> bool {
        self.statuses & status_bit(status) != 0
    }

    #[cfg(feature = "http")]
    pub(crate) fn retries_code(&self, code: u8) -> bool {
        self.grpc_codes & code_bit(code) != 0
    }
}

fn status_bit(status: u16) -> u128 {
    match status {
        500..=599 => 1 << (status - 500),
        408 => 1 << 100,
        429 => 1 << 101,
        _ => 0,
    }
}

fn code_bit(code: u8) -> u32 {
    1_u32.checked_shl(code.into()).unwrap_or(0)
}
