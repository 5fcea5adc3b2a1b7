//! README's first command, shorter.

use crate::process::binary;

#[test]
fn the_demo_shows_every_layer_at_work_and_says_so() {
    let output = binary().args(["--demo", "--duration", "12s"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "no noise");
    assert!(!text.contains('\x1b'), "no colours in a file");
    for said in
        ["A answers 500", "B hangs", "A closed>", ", full ", "cut ", "retried ", "denied ", "Verdict", "It held."]
    {
        assert!(text.contains(said), "{said}: {text}");
    }
    for line in text.lines() {
        assert!(line.chars().count() <= 120, "{line}");
    }
    // Rows and what happens between them come in the order of their times.
    let times: Vec<f64> = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("---- at ").or(line.trim_start().split_once("s | ").map(|_| line.trim_start()))
        })
        .filter_map(|line| line.split('s').next()?.parse().ok())
        .collect();
    assert!(times.len() > 12 && times.is_sorted(), "{times:?}: {text}");
    let seconds = text.lines().filter(|line| {
        let time = line.trim_start().split(' ').next().unwrap_or_default();
        time.ends_with('s') && !time.contains('.')
    });
    assert!(seconds.count() >= 12, "{text}");
}

#[test]
fn a_demo_too_short_to_show_anything_is_refused() {
    let output = binary().args(["--demo", "--duration", "1s"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("--duration") && error.contains("5s to 1h"), "{error}");
}
