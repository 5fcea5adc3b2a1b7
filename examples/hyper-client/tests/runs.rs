//! The example runs, and shows what it says it shows.

use std::process::Command;

#[test]
fn three_failures_open_the_circuit() {
    let run = Command::new(env!("CARGO_BIN_EXE_buttress-example-hyper-client")).output().expect("it starts");
    let shown = String::from_utf8(run.stdout).expect("it prints text");
    assert!(run.status.success(), "{shown}{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(shown.matches("the server says 500").count(), 3, "{shown}");
    assert_eq!(shown.matches("not sent: refused by the breaker").count(), 2, "{shown}");
}
