//! The example runs, and shows what it says it shows.

use std::process::Command;

#[test]
fn refusals_have_their_codes() {
    let run = Command::new(env!("CARGO_BIN_EXE_buttress-example-tonic")).output().expect("it starts");
    let shown = String::from_utf8(run.stdout).expect("it prints text");
    assert!(run.status.success(), "{shown}{}", String::from_utf8_lossy(&run.stderr));
    for line in [
        "healthy: Serving",
        "it took more than one attempt: true",
        "limited: ResourceExhausted: at capacity",
        "pushback: Some(",
        "circuit open: Unavailable: circuit breaker open",
    ] {
        assert!(shown.contains(line), "{line} is not in {shown}");
    }
}
