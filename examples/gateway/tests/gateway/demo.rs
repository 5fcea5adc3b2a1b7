//! README's first command, shorter.

use crate::process::binary;
use std::process::Output;

fn demo(args: &[&str]) -> Output {
    binary().arg("--demo").args(args).output().unwrap()
}

/// The text of a demo that held.
fn held(output: Output) -> String {
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "no noise");
    assert!(text.trim_end().ends_with("It held.") && !text.contains("FAIL"), "{text}");
    assert!(!text.contains('\x1b'), "no colours in a file");
    text
}

#[test]
fn clients_are_well_while_every_third_endpoint_fails_and_every_layer_says_what_it_did() {
    let text = held(demo(&["--duration", "15s"]));
    for said in [
        "a/1 errors",
        "b/2 hangs",
        "a/2 cuts bodies",
        "c/1 overloaded",
        "a/3 slow",
        "b/1 refuses",
        "retried ",
        "denied ",
        "cut ",
        "opened ",
        "full ",
        "canary tripped 1",
        "clients got 9",
        "upstreams gave 6",
        "6 kinds of faults",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // Rows and what happens between them come in the order of their times.
    let times: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("---- ").or(line.contains(" | clients").then_some(line)))
        .filter_map(|line| line.trim_start().split('s').next()?.parse().ok())
        .collect();
    assert!(times.len() >= 27 && times.is_sorted(), "{times:?}: {text}");
}

#[test]
fn without_protection_clients_get_what_upstreams_give() {
    let text = held(demo(&["--duration", "10s", "--protection", "off"]));
    for said in ["PROTECTION IS OFF", "as expected without protection: "] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("retried") && !text.contains("opened"), "{text}");
}

#[test]
fn a_demo_too_short_to_show_anything_is_refused() {
    let output = demo(&["--duration", "1s"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("--duration") && error.contains("10s to 1h"), "{error}");
}

#[test]
fn protection_is_on_or_off() {
    let output = demo(&["--protection", "maybe"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("allowed: on, off"), "{error}");
}
