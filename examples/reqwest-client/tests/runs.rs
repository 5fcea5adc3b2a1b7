//! The example runs, and shows what it says it shows.

use std::process::Command;

#[test]
fn a_good_answer_is_read_a_bad_one_asked_again_and_a_slow_one_cut() {
    let run = Command::new(env!("CARGO_BIN_EXE_buttress-example-reqwest-client")).output().expect("it starts");
    let shown = String::from_utf8(run.stdout).expect("it prints text");
    assert!(run.status.success(), "{shown}{}", String::from_utf8_lossy(&run.stderr));
    assert!(shown.contains(r#"/: 200 OK "hello""#), "{shown}");
    assert!(shown.contains(r#"/flaky: 200 OK "hello""#), "{shown}");
    assert!(shown.contains("/slow: refused by the deadline: deadline passed"), "{shown}");
}
