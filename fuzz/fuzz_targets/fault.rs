//! A fault as text: no text makes the parser panic, and what it reads it writes so that it reads the same again.
#![no_main]

use buttress_chaos::Fault;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(fault) = text.parse::<Fault>() else { return };
    assert_eq!(fault.validate(), Ok(()));
    assert_eq!(fault.to_string().parse(), Ok(fault));
});
