//! The example runs, and shows what it says it shows.

use std::process::Command;

#[test]
fn two_of_five_are_served_and_a_stuck_one_ends() {
    let run = Command::new(env!("CARGO_BIN_EXE_buttress-example-axum-server")).output().expect("it starts");
    let shown = String::from_utf8(run.stdout).expect("it prints text");
    assert!(run.status.success(), "{shown}{}", String::from_utf8_lossy(&run.stderr));
    let count = |what: &str| shown.matches(what).count();
    assert_eq!((count("report"), count(": HTTP/1.1 200 OK")), (5, 2), "two reports at a time: {shown}");
    assert_eq!(count("503 Service Unavailable retry-after:"), 3, "{shown}");
    assert!(shown.contains(r#""kind":"bulkhead""#), "{shown}");
    let refusals = r#"buttress_telemetry_refusals_total{name="telemetry",error_type="#;
    for refused in [r#""at_capacity"} 3"#, r#""deadline_passed"} 1"#] {
        assert!(shown.contains(&format!("{refusals}{refused}")), "{shown}");
    }
    assert!(shown.contains("stuck:    HTTP/1.1 503"), "{shown}");
}
