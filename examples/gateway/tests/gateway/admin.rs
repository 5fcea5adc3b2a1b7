//! The admin pages, and layers that are switched off.

use crate::process::{Gateway, LISTEN, binary, config_file, get, one};
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

#[tokio::test]
async fn a_layer_that_is_switched_off_refuses_nothing_and_status_says_so() {
    // Nobody listens there: every call fails, and a breaker would open.
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for (breaker, mode, last) in [("false", "disabled", 0), ("{ min_calls = 3 }", "auto", 1)] {
        let lines = format!("breaker = {breaker}\ndeadline = false\nbulkhead = false");
        let gateway = Gateway::before(nobody, &lines);
        for _ in 0..10 {
            get(gateway.address, "/").await;
        }
        let layers = &gateway.status().await["layers"];
        let breaker = &layers["cluster.u.breaker"];
        assert_eq!(breaker["mode"], json!(mode), "{breaker}");
        assert_eq!(i32::from(breaker["refused_total"] != json!(0)), last, "{breaker}");
        assert_eq!(layers["cluster.u.bulkhead"]["mode"], json!("disabled"));
        assert_eq!(layers["cluster.u.deadline"]["mode"], json!("disabled"));
        assert_eq!(layers["route.r.bulkhead"]["mode"], json!("auto"));
    }
}

#[tokio::test]
async fn pages_end_with_a_newline_and_status_says_no_name_twice() {
    let gateway = Gateway::before("127.0.0.1:9".parse().unwrap(), "");
    for path in ["/livez", "/readyz", "/nowhere", "/status"] {
        assert!(get(gateway.admin, path).await.body().ends_with(b"\n"), "{path}");
    }
    let status = gateway.status().await;
    assert!(status["layers"]["cluster.u.breaker"]["kind"] == "breaker");
    assert!(status["layers"]["cluster.u.breaker"].get("name").is_none(), "{status}");
}

#[tokio::test]
async fn log_lines_say_which_upstream() {
    let tables = one("127.0.0.1:1".parse().unwrap(), "breaker = { min_calls = 3 }", "");
    let path = config_file(&format!("{LISTEN}{tables}"));
    let mut gateway = binary();
    gateway.args(["run", "-c"]).arg(&path).env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = gateway.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit("http://").next().unwrap().parse().unwrap();
    for _ in 0..5 {
        get(address, "/").await;
    }
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    std::fs::remove_file(path).unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("circuit opened name=\"cluster.u\""), "{log}");
}
