//! The example runs, and shows what it says it shows.

use std::process::Command;

#[test]
fn no_call_is_lost_though_a_server_is_bad() {
    let run = Command::new(env!("CARGO_BIN_EXE_buttress-example-hyper-client")).output().expect("it starts");
    let shown = String::from_utf8(run.stdout).expect("it prints text");
    assert!(run.status.success(), "{shown}{}", String::from_utf8_lossy(&run.stderr));
    assert!(shown.contains("200 of 200 calls went well"), "{shown}");
    let calls = |line: &str| line.split(": ").nth(1)?.split(' ').next()?.parse::<u32>().ok();
    let calls: Vec<u32> = shown.lines().filter_map(calls).collect();
    assert!(calls.len() == 3 && calls[0] <= 5 && calls[1] + calls[2] == 200, "{shown}");
}
