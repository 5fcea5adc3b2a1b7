//! A config that is wrong says what is wrong, where, and what would be right.

use crate::process::{binary, check, config_file};

const FINE: &str = r#"
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[upstream.a]
address = "127.0.0.1:9001"
[route.a]
prefix = "/"
upstream = "a"
"#;

fn wrong(text: &str) -> String {
    let output = check(text);
    assert!(!output.status.success(), "{text}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_fine_config_passes_and_so_does_the_sample() {
    assert!(check(FINE).status.success());
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.toml");
    let output = binary().args(["check", "-c", sample]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_wrong_field_is_named_with_its_value_and_what_is_allowed() {
    for (from, to, said) in [
        ("prefix = \"/\"", "prefix = \"api\"", "`route.a.prefix` is \"api\", allowed: a path that begins with `/`"),
        (
            "upstream = \"a\"",
            "upstream = \"b\"",
            "`route.a.upstream` is \"b\", allowed: the name of an upstream: \"a\"",
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:0\"",
            "[admin]\nlisten = \"0.0.0.0:1\"",
            "`admin.listen` is 0.0.0.0:1, allowed: a loopback",
        ),
        ("[admin]", "max_connections = 0\n[admin]", "`server.max_connections` is 0, allowed: 1 to 1000000"),
        ("[admin]", "header_timeout = \"0s\"\n[admin]", "`server.header_timeout` is 0s, allowed: more than 0s"),
        (
            "[admin]",
            "drain_min = \"1h\"\n[admin]",
            "`server.drain_min` is 1h, allowed: at most `server.drain_max`, 30s",
        ),
        (
            "[route.a]",
            "connect_timeout = \"0s\"\n[route.a]",
            "`upstream.a.connect_timeout` is 0s, allowed: more than 0s",
        ),
        (
            "[route.a]",
            "breaker = { failure_rate = 1.5 }\n[route.a]",
            "`upstream.a.breaker.failure_rate` is 1.5, allowed: more than 0 and at most 1",
        ),
        (
            "[route.a]",
            "bulkhead = { limit = 4294967295 }\n[route.a]",
            "`upstream.a.bulkhead.limit` is 4294967295, allowed: 0 to 2147483647",
        ),
        (
            "[route.a]",
            "deadline = { per_try = \"0s\" }\n[route.a]",
            "`upstream.a.deadline.per_try` is 0s, allowed: more than 0",
        ),
        (
            "[route.a]",
            "deadline = { per_try = \"60s\" }\n[route.a]",
            "`upstream.a.deadline.per_try` is 1m, allowed: less than `route.a.deadline.total`, 30s",
        ),
        ("127.0.0.1:9001", "nowhere", "\"nowhere\" is not an upstream, allowed: host:port"),
        ("127.0.0.1:9001", "u@h:1", "\"u@h:1\" is not an upstream, allowed: host:port"),
        ("\"127.0.0.1:9001\"", "[]", "an empty list, allowed: at least one endpoint"),
        ("\"127.0.0.1:9001\"", "[\"h:1\", \"h:01\"]", "\"h:01\" stands there twice, allowed: each endpoint once"),
        ("\"127.0.0.1:9001\"", "[\"h:1\", \"h\"]", "\"h\" is not an upstream, allowed: host:port"),
        ("\"127.0.0.1:9001\"", "9001", "expected host:port, or a list of them"),
        ("[route.a]", "balance = { picks = 0 }\n[route.a]", "`upstream.a.balance.picks` is 0, allowed: 1 to 16"),
        (
            "upstream = \"a\"",
            "upstream = \"a\"\nretry = { max_attempts = 0 }",
            "`route.a.retry.max_attempts` is 0, allowed: 1 (no retries) to 15",
        ),
        (
            "upstream = \"a\"",
            "upstream = \"a\"\nretry = { budget = { ratio = 3.0 } }",
            "`route.a.retry.budget.ratio` is 3, allowed: 0.000001 to 2",
        ),
        (
            "upstream = \"a\"",
            "upstream = \"a\"\nretry = { backoff = { kind = \"constant\", delay = \"2h\" } }",
            "`route.a.retry.backoff.delay` is 2h, allowed: 0s to 1h",
        ),
        (
            "upstream = \"a\"",
            "upstream = \"a\"\nretry = { statuses = [404] }",
            "`route.a.retry.statuses` is 404, allowed: 408, 429, 500 to 599",
        ),
        ("127.0.0.1:9001", "h:0", "\"h:0\" is not an upstream, allowed: host:port"),
        ("listen = \"127.0.0.1:0\"", "listen = \"8080\"", "\"8080\" is not an address, allowed: an IP and a port"),
        ("[admin]", "body_timeout = \"0s\"\n[admin]", "`server.body_timeout` is 0s, allowed: more than 0s"),
        (
            "[route.a]",
            "deadline = { per_try = \"2s\" }\n[route.b]\nprefix = \"/b\"\nupstream = \"a\"\ndeadline = { total = \"2s\" }\n[route.a]",
            "`upstream.a.deadline.per_try` is 2s, allowed: less than `route.b.deadline.total`, 2s",
        ),
        ("[admin]", "drain_max = \"soon\"\n[admin]", "`soon` is not a duration, allowed: a number and a unit"),
        (
            "[route.a]",
            "deadline = { per_try = 5 }\n[route.a]",
            "5 is not a duration, allowed: a number and a unit, as in \"5s\"",
        ),
        ("[route.a]", "breaker = { window = \"10s\" }\n[route.a]", "{ time = \"10s\" } or { count = 100 }"),
        ("[route.a]", "breaker = { window = 10 }\n[route.a]", "{ time = \"10s\" } or { count = 100 }"),
        ("[route.a]", "breaker = 5\n[route.a]", "expected a table, or `false` to switch the layer off"),
        ("[route.a]", "breaker = true\n[route.a]", "a layer that is not written has its defaults"),
        ("upstream = \"a\"", "upstream = \"a\"\nbreaker = {}", "a breaker belongs to an upstream"),
        (
            "\"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"",
            "\"127.0.0.1:7000\"\n[admin]\nlisten = \"127.0.0.1:7000\"",
            "`admin.listen` is 127.0.0.1:7000, allowed: an address of its own; `server.listen` has this one",
        ),
        ("[admin]", "max_conections = 1\n[admin]", "unknown field `max_conections`, expected one of"),
        ("[route.a]", "braker = {}\n[route.a]", "unknown field `braker`, expected one of"),
        ("[route.a]", "breaker = { min_cals = 1 }\n[route.a]", "unknown field `min_cals`, expected one of"),
        ("upstream = \"a\"", "", "missing field `upstream`"),
        ("upstream = \"a\"", "upstream = 5", "expected a string"),
    ] {
        let text = FINE.replacen(from, to, 1);
        assert_ne!(text, FINE);
        let error = wrong(&text);
        assert!(error.contains(said), "{to}: {error}");
        assert!(error.contains("gateway-") && error.contains(".toml: "), "it names the file: {error}");
    }
}

#[test]
fn all_wrong_values_are_said_at_once() {
    let text = FINE.replace("prefix = \"/\"", "prefix = \"x\"").replace("upstream = \"a\"", "upstream = \"z\"");
    let error = wrong(&text);
    assert_eq!(error.lines().count(), 2, "{error}");

    let layers = FINE.replace("[route.a]", "breaker = { min_calls = 0 }\nbulkhead = { stripes = 65 }\n[route.a]");
    let error = wrong(&layers);
    assert!(error.contains("breaker.min_calls") && error.contains("bulkhead.stripes"), "{error}");
}

#[test]
fn all_unreadable_values_are_said_at_once_each_with_its_line() {
    let text = FINE
        .replace("[admin]", "drain_max = 5\nmax_conections = 1\n[admin]")
        .replace("upstream = \"a\"", "upstream = 5\nbreaker = {}");
    let error = wrong(&text);
    for said in ["5 is not a duration", "`max_conections`", "expected a string", "a breaker belongs to an upstream"] {
        assert_eq!(error.matches(said).count(), 1, "{said}: {error}");
    }
    assert_eq!(error.matches(".toml: ").count(), 4, "and nothing that follows from them: {error}");
    assert_eq!(error.matches("at line").count(), 4, "{error}");
}

#[test]
fn check_shows_every_chain_with_the_values_that_hold() {
    let said = |text: &str| {
        let output = check(text);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let [text, warnings] = said(FINE);
    for line in [
        "is fine: 1 route, 1 upstream\n",
        "route.a: / -> upstream.a\n  deadline  total=30s  read=grpc-timeout\n  bulkhead  limit=64\n",
        "upstream.a: 127.0.0.1:9001, HTTP/1\n  breaker   failure_rate=0.5  hang_after=",
        "window=10s  min_calls=20  open_for=5s  max_open=1m",
        "  bulkhead  limit=64\n  deadline  emit=grpc-timeout\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(warnings, "");

    let off = FINE
        .replace("[route.a]", "breaker = false\n[upstream.b]\naddress = \"[::1]:1\"\nbulkhead = false\n[route.a]")
        .replace("upstream = \"a\"", "upstream = \"a\"\ndeadline = false");
    let [text, warnings] = said(&off);
    for line in ["1 route, 2 upstreams", "breaker   off\n", "bulkhead  off\n", "deadline  off\n"] {
        assert_eq!(text.matches(line).count(), 1, "{line}: {text}");
    }
    assert!(warnings.contains("warning: no route leads to `upstream.b`"), "{warnings}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = binary().args(["run", "-c", "/nowhere/gateway.toml"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.starts_with("/nowhere/gateway.toml: "), "{error}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for field in ["server", "admin"] {
        let text = FINE
            .replace(&format!("[{field}]\nlisten = \"127.0.0.1:0\""), &format!("[{field}]\nlisten = \"{address}\""));
        let path = config_file(&text);
        let output = binary().args(["run", "-c"]).arg(&path).output().unwrap();
        std::fs::remove_file(path).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let said = format!("cannot listen on {address} (`{field}.listen`)");
        assert!(!output.status.success() && error.contains(&said), "{error}");
    }
}
