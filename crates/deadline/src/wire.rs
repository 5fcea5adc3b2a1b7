//! Deadlines on the wire: relative times only, so that clocks need not agree.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{fmt, time::Duration};

/// The header of gRPC.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The largest number that `grpc-timeout` can say.
const MOST: u128 = 99_999_999;

/// Units of `grpc-timeout` and their nanoseconds, the finest first.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// Reads `grpc-timeout` ([gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)): 1 to 8 digits
/// and a unit out of `H M S m u n`. `None`: it is not one. A negative number is zero: that time has passed.
///
/// ```
/// use buttress_deadline::wire::parse_grpc_timeout;
/// use std::time::Duration;
///
/// assert_eq!(parse_grpc_timeout(b"250m"), Some(Duration::from_millis(250)));
/// assert_eq!(parse_grpc_timeout(b"-1S"), Some(Duration::ZERO));
/// assert_eq!(parse_grpc_timeout(b"soon"), None);
/// ```
pub fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, number) = value.split_last()?;
    let (_, nanos) = UNITS.into_iter().find(|(name, _)| name == unit)?;
    let (digits, negative) = unsigned(number);
    if digits.len() > 8 {
        return None;
    }
    let number = parse_digits(digits)?;
    if negative {
        return Some(Duration::ZERO);
    }
    Some(duration(u128::from(number) * nanos))
}

/// Writes `grpc-timeout`: in the finest unit that 8 digits can say, rounded down, at least one unit and at most 11 000 years.
pub fn format_grpc_timeout(remaining: Duration) -> String {
    let nanos = remaining.as_nanos().max(1);
    let (unit, size) = UNITS.into_iter().find(|(_, size)| nanos / size <= MOST).unwrap_or(UNITS[5]);
    format!("{}{}", (nanos / size).min(MOST), char::from(unit))
}

/// Reads whole milliseconds. `None`: they are not. A negative number is zero; more than fit are a very long time.
pub fn parse_millis(value: &[u8]) -> Option<Duration> {
    let (digits, negative) = unsigned(value.trim_ascii());
    let millis = parse_digits(digits)?;
    Some(if negative { Duration::ZERO } else { Duration::from_millis(millis) })
}

/// Writes whole milliseconds, rounded down, at least one.
pub fn format_millis(remaining: Duration) -> String {
    remaining.as_millis().max(1).to_string()
}

fn unsigned(value: &[u8]) -> (&[u8], bool) {
    match value.strip_prefix(b"-") {
        Some(digits) => (digits, true),
        None => (value, false),
    }
}

/// Digits and nothing else; saturates.
fn parse_digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

fn duration(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    // 8 digits of hours are 3.6e11 seconds; the rest is below a second.
    Duration::new((nanos / SECOND) as u64, (nanos % SECOND) as u32)
}

/// Which headers a layer reads or writes, with their names checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) grpc_timeout: bool,
    pub(crate) millis: Option<HeaderName>,
}

/// What a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Nothing,
    /// A header is there and cannot be read.
    Garbage,
    Within(Duration),
}

impl Wire {
    pub(crate) fn read(&self, headers: &HeaderMap, grpc: bool) -> Said {
        let mut said = Said::Nothing;
        if self.grpc_timeout
            && grpc
            && let Some(value) = headers.get(GRPC_TIMEOUT)
        {
            said = parse_grpc_timeout(value.as_bytes()).map_or(Said::Garbage, Said::Within);
        }
        if let Some(name) = &self.millis
            && let Some(value) = headers.get(name)
        {
            said = match (said, parse_millis(value.as_bytes())) {
                (Said::Within(a), Some(b)) => Said::Within(a.min(b)),
                (_, Some(b)) => Said::Within(b),
                (Said::Nothing, None) => Said::Garbage,
                (said, None) => said,
            };
        }
        said
    }

    /// Every header that is configured says the same, so that none a stranger sent is left beside ours.
    pub(crate) fn write(&self, headers: &mut HeaderMap, grpc: bool, remaining: Duration) {
        let mut write = |name: HeaderName, text: String| {
            if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
                headers.insert(name, value);
            }
        };
        if self.grpc_timeout && grpc {
            write(GRPC_TIMEOUT, format_grpc_timeout(remaining));
        }
        if let Some(name) = &self.millis {
            write(name.clone(), format_millis(remaining));
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grpc = self.grpc_timeout.then_some("grpc-timeout");
        let names: Vec<&str> = grpc.into_iter().chain(self.millis.as_ref().map(HeaderName::as_str)).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grpc_timeouts_are_read_as_grpc_writes_them() {
        for (text, want) in [
            ("1n", Duration::from_nanos(1)),
            ("20u", Duration::from_micros(20)),
            ("250m", Duration::from_millis(250)),
            ("3S", Duration::from_secs(3)),
            ("2M", Duration::from_secs(120)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("00000001S", Duration::from_secs(1)),
            ("0S", Duration::ZERO),
            ("-5m", Duration::ZERO),
        ] {
            assert_eq!(parse_grpc_timeout(text.as_bytes()), Some(want), "{text}");
        }
        for text in ["", "m", "-m", "5", "5s", "5h", "+5m", "1.5S", " 5m", "5m ", "100000000m", "--1m", "5ms", "٣m"] {
            assert_eq!(parse_grpc_timeout(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn milliseconds_are_digits_and_nothing_else() {
        assert_eq!(parse_millis(b"250"), Some(Duration::from_millis(250)));
        assert_eq!(parse_millis(b" 0 "), Some(Duration::ZERO));
        assert_eq!(parse_millis(b"-250"), Some(Duration::ZERO));
        assert_eq!(parse_millis(b"99999999999999999999999"), Some(Duration::from_millis(u64::MAX)));
        for text in ["", "-", "1.5", "1e3", "0x1", "1 0", "+1", "1ms"] {
            assert_eq!(parse_millis(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_fits_and_is_never_zero() {
        assert_eq!(format_grpc_timeout(Duration::ZERO), "1n");
        assert_eq!(format_grpc_timeout(Duration::from_nanos(99_999_999)), "99999999n");
        assert_eq!(format_grpc_timeout(Duration::from_nanos(100_000_999)), "100000u");
        assert_eq!(format_grpc_timeout(Duration::MAX), "99999999H");
        assert_eq!(format_millis(Duration::from_micros(1)), "1");
        assert_eq!(format_millis(Duration::from_micros(1_999)), "1");
    }

    proptest! {
        #[test]
        fn a_written_grpc_timeout_reads_back_never_longer_and_hardly_shorter(secs in 0_u64..=360_000_000_000, nanos: u64, shift in 0_u32..64, in_seconds: bool) {
            let given = if in_seconds { Duration::from_secs(secs >> (shift / 2)) } else { Duration::from_nanos(nanos >> shift) };
            let text = format_grpc_timeout(given);
            prop_assert!(text.len() <= 9);
            let read = parse_grpc_timeout(text.as_bytes()).unwrap();
            prop_assert!(read <= given.max(Duration::from_nanos(1)), "{text}");
            prop_assert!(read > Duration::ZERO);
            // One unit at most is lost, and the next coarser one is taken only where it says 100 000 or more.
            prop_assert!(given - read.min(given) <= given / 99_999, "{text} for {given:?}");
        }

        #[test]
        fn written_milliseconds_read_back_never_longer(micros in 1_000_u64..) {
            let given = Duration::from_micros(micros);
            let read = parse_millis(format_millis(given).as_bytes()).unwrap();
            prop_assert!(read <= given && given - read < Duration::from_millis(1));
        }

        #[test]
        fn no_bytes_make_a_parser_panic(bytes: Vec<u8>) {
            let _ = parse_grpc_timeout(&bytes);
            let _ = parse_millis(&bytes);
        }
    }
}
