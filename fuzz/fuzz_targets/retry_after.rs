//! `Retry-After`: no bytes make the parser panic, whatever the clock says, and seconds are read as they are.
#![no_main]

use buttress_core::{Pushback, http::parse_retry_after};
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, SystemTime};

fuzz_target!(|input: (u32, &[u8])| {
    let (epoch, value) = input;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(epoch));
    let pushback = parse_retry_after(value, now);
    if let Some(seconds) = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u32>().ok())
        && value[0] != b'+'
    {
        assert_eq!(pushback, Some(Pushback::after(Duration::from_secs(u64::from(seconds)))));
    }
    // `Retry-After` never says "never".
    assert_ne!(pushback, Some(Pushback::NEVER));
});
