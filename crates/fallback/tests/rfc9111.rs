//! RFC 9111 and RFC 5861 for a shared cache that gives stale answers on failure: a row a rule.
//!
//! Every row is one resource: a first request, which the origin answers; some time later a second one, to which it says what `origin`
//! says. `want` is what the client of the second one gets.
#![cfg(feature = "http")]

mod origin;

use buttress_core::{BoxError, Cause, Degraded, DegradedBy, Reason, Rejection};
use buttress_fallback::StaleConfig;
use origin::*;
use std::time::Duration;

/// What the origin says to the second request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Status(u16),
    /// 503 with `Retry-After`.
    Busy,
    Error,
    /// A layer further in refuses.
    Refuses(Reason),
    /// Nothing is expected to ask it.
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    /// The stored answer, `Age` so many seconds.
    Fresh(u64),
    /// The same, marked as degraded.
    Stale(u64),
    /// 304, of the stored answer.
    NotModified,
    /// What the origin says.
    Origin,
    /// 504 of the store.
    NotStored,
}

struct Row {
    rule: &'static str,
    what: &'static str,
    /// Of the first request, and of its answer.
    first: Vec<(&'static str, &'static str)>,
    status: u16,
    said: Vec<(&'static str, String)>,
    /// Seconds between head and second request.
    after: u64,
    method: &'static str,
    second: Vec<(&'static str, &'static str)>,
    then: Then,
    max: Option<u64>,
    cache: bool,
    want: Want,
}

fn row(rule: &'static str, what: &'static str) -> Row {
    Row {
        rule,
        what,
        first: vec![],
        status: 200,
        said: vec![],
        after: 20,
        method: "GET",
        second: vec![],
        then: Then::Status(500),
        max: None,
        cache: false,
        want: Want::Origin,
    }
}

impl Row {
    fn first(mut self, name: &'static str, value: &'static str) -> Self {
        self.first.push((name, value));
        self
    }
    fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
    fn said(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.said.push((name, value.into()));
        self
    }
    fn cc(self, value: &'static str) -> Self {
        self.said("cache-control", value)
    }
    fn after(mut self, seconds: u64) -> Self {
        self.after = seconds;
        self
    }
    fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }
    fn second(mut self, name: &'static str, value: &'static str) -> Self {
        self.second.push((name, value));
        self
    }
    fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
    fn max(mut self, seconds: u64) -> Self {
        self.max = Some(seconds);
        self
    }
    fn cache(mut self) -> Self {
        self.cache = true;
        self
    }
    fn want(mut self, want: Want) -> Self {
        self.want = want;
        self
    }
}

/// Stale after 10 s, and good for 90 s more where the origin fails.
const SIE: &str = "max-age=10, stale-if-error=90";

fn rows() -> Vec<Row> {
    use Then::*;
    use Want::*;
    vec![
        // When a stale answer stands in place of a failure.
        row("RFC 5861, 4", "500 is an error").cc(SIE).want(Stale(20)),
        row("RFC 5861, 4", "502 is an error").cc(SIE).then(Status(502)).want(Stale(20)),
        row("RFC 5861, 4", "503 is an error").cc(SIE).then(Status(503)).want(Stale(20)),
        row("RFC 5861, 4", "503 with Retry-After is a 503").cc(SIE).then(Busy).want(Stale(20)),
        row("RFC 5861, 4", "504 is an error").cc(SIE).then(Status(504)).want(Stale(20)),
        row("RFC 5861, 4", "501 is none").cc(SIE).then(Status(501)),
        row("RFC 5861, 4", "505 is none").cc(SIE).then(Status(505)),
        row("RFC 5861, 4", "429 is none").cc(SIE).then(Status(429)),
        row("RFC 5861, 4", "404 is an answer").cc(SIE).then(Status(404)),
        row("RFC 9111, 4.3.3", "no connection is an error").cc(SIE).then(Error).want(Stale(20)),
        row("refusals", "an open breaker").cc(SIE).then(Refuses(Reason::BreakerOpen)).want(Stale(20)),
        row("refusals", "a passed deadline").cc(SIE).then(Refuses(Reason::DeadlinePassed)).want(Stale(20)),
        row("refusals", "a panic").cc(SIE).then(Refuses(Reason::Panicked)).want(Stale(20)),
        row("refusals", "a rate limit is the client's doing").cc(SIE).then(Refuses(Reason::RateLimited)),
        row("refusals", "its own deadline, too").cc(SIE).then(Refuses(Reason::ClientDeadlinePassed)),
        row("refusals", "and a bad request").cc(SIE).then(Refuses(Reason::BadRequest)),
        row("RFC 5861, 4", "to the last second").cc(SIE).after(100).want(Stale(100)),
        row("RFC 5861, 4", "and not a second longer").cc(SIE).after(101),
        row("RFC 5861, 4", "0 s are none").cc("max-age=10, stale-if-error=0").after(10),
        row("RFC 5861, 4", "a time that cannot be read is none").cc("max-age=10, stale-if-error=soon").after(10),
        row("RFC 5861, 3", "stale-while-revalidate says nothing of errors").cc("max-age=10, stale-while-revalidate=90"),
        row("RFC 5861, 4", "stale-if-error=0 is a word, too")
            .cc("max-age=10, stale-while-revalidate=90, stale-if-error=0")
            .max(60),
        row("RFC 5861, 4", "a request may take less").cc(SIE).second("cache-control", "stale-if-error=9"),
        row("RFC 5861, 4", "as much as there is").cc(SIE).second("cache-control", "stale-if-error=10").want(Stale(20)),
        row("RFC 5861, 4", "and no more")
            .cc("max-age=10, stale-if-error=5")
            .max(60)
            .second("cache-control", "stale-if-error=60"),
        row("RFC 5861, 4", "no more than the operator allows, either")
            .cc("max-age=10")
            .max(5)
            .second("cache-control", "stale-if-error=60"),
        row("RFC 5861, 4", "and nothing where nobody else allows it")
            .cc("max-age=10, stale-while-revalidate=90")
            .second("cache-control", "stale-if-error=60"),
        row("stale.max", "nothing without a word of answer or operator").cc("max-age=10"),
        row("stale.max", "the operator allows it").cc("max-age=10").max(60).want(Stale(20)),
        row("stale.max", "for so long").cc("max-age=10").max(9),
        row("stale.max", "where the answer says nothing").cc("max-age=10, stale-if-error=5").max(60),
        row("stale.max", "also of what never said how long it is fresh").max(60).want(Stale(20)),
        row("RFC 9111, 4.2", "what is fresh may be given on failure").cc("max-age=60").want(Fresh(20)),
        // What is never used stale.
        row("RFC 9111, 5.2.2.2", "must-revalidate").cc("max-age=10, must-revalidate, stale-if-error=90").max(60),
        row("RFC 9111, 5.2.2.2", "must-revalidate, while it is fresh")
            .cc("max-age=60, must-revalidate")
            .want(Fresh(20)),
        row("RFC 9111, 5.2.2.8", "proxy-revalidate").cc("max-age=10, proxy-revalidate, stale-if-error=90").max(60),
        row("RFC 9111, 5.2.2.10", "s-maxage").cc("s-maxage=10, stale-if-error=90").max(60),
        row("RFC 9111, 5.2.2.10", "s-maxage counts before max-age").cc("s-maxage=60, max-age=10").want(Fresh(20)),
        row("RFC 9111, 5.2.2.4", "no-cache").cc("max-age=60, no-cache, stale-if-error=90").max(60),
        row("RFC 9111, 5.2.2.4", "no-cache of single fields")
            .cc("max-age=60, no-cache=\"x\", stale-if-error=90")
            .max(60),
        // What is never stored.
        row("RFC 9111, 5.2.2.5", "no-store").cc("max-age=60, no-store").max(60),
        row("RFC 9111, 5.2.2.5", "no-store in another line").cc("max-age=60").cc("no-store").max(60),
        row("RFC 9111, 5.2.2.5", "NO-STORE").cc("max-age=60,NO-STORE").max(60),
        row("RFC 9111, 5.2.2.7", "private").cc("max-age=60, private").max(60),
        row("RFC 9111, 5.2.2.7", "private fields").cc("max-age=60, private=\"x\"").max(60),
        row("RFC 9111, 5.2.1.5", "no-store of the request").cc(SIE).first("cache-control", "no-store"),
        row("RFC 9111, 5.2.1.5", "what is stored already may be given")
            .cc(SIE)
            .second("cache-control", "no-store")
            .want(Stale(20)),
        row("RFC 9111, 7.3", "Set-Cookie").cc(SIE).said("set-cookie", "a=b").max(60),
        row("RFC 9111, 3.5", "Authorization").cc(SIE).first("authorization", "Basic YQ=="),
        row("RFC 9111, 3.5", "Authorization, and public")
            .cc("public, max-age=10, stale-if-error=90")
            .first("authorization", "Basic YQ==")
            .want(Stale(20)),
        row("RFC 9111, 3.5", "Authorization asks for what is not public").cc(SIE).second("authorization", "Basic YQ=="),
        row("RFC 9111, 3.5", "Authorization asks for what is")
            .cc("public, max-age=10, stale-if-error=90")
            .second("authorization", "Basic YQ==")
            .want(Stale(20)),
        row("cookies", "as Authorization").cc(SIE).first("cookie", "a=b"),
        row("cookies", "as Authorization, on both sides").cc(SIE).second("cookie", "a=b"),
        row("RFC 9111, 3.3", "206")
            .cc(SIE)
            .status(206)
            .first("range", "bytes=0-3")
            .said("content-range", "bytes 0-3/9"),
        row("RFC 9111, 3.3", "206 that nobody asked for").cc(SIE).status(206),
        row("RFC 9111, 3", "a request for a part, answered whole").cc(SIE).first("range", "bytes=0-3"),
        row("RFC 9110, 15.1", "203").cc(SIE).status(203).want(Stale(20)),
        row("RFC 9110, 15.1", "301").cc(SIE).status(301).want(Stale(20)),
        row("RFC 9110, 15.1", "308").cc(SIE).status(308).want(Stale(20)),
        row("RFC 9110, 15.1", "404").cc(SIE).status(404).want(Stale(20)),
        row("RFC 9110, 15.1", "410").cc(SIE).status(410).want(Stale(20)),
        row("RFC 9110, 15.1", "302 is for now").cc(SIE).status(302),
        row("RFC 9110, 15.1", "201").cc(SIE).status(201),
        row("RFC 9110, 15.1", "403").cc(SIE).status(403),
        row("RFC 9110, 15.1", "500").cc(SIE).status(500),
        // How old it is, and how long it is fresh.
        row("RFC 9111, 4.2.1", "Expires less Date")
            .said("date", http_date(0))
            .said("expires", http_date(60))
            .want(Fresh(20)),
        row("RFC 9111, 4.2.1", "max-age counts before Expires")
            .cc(SIE)
            .said("expires", http_date(6000))
            .want(Stale(20)),
        row("RFC 9111, 5.3", "an Expires that is no date has passed")
            .said("expires", "0")
            .said("cache-control", "stale-if-error=90")
            .want(Stale(20)),
        row("RFC 9111, 4.2.1", "two Expires are none").said("expires", http_date(60)).said("expires", http_date(90)),
        row("RFC 9111, 4.2.1", "of two max-age the shorter").cc("max-age=60").cc("max-age=10"),
        row("RFC 9111, 1.2.2", "a time that is too long is long").cc("max-age=99999999999999").want(Fresh(20)),
        row("RFC 9111, 4.2.1", "a time that cannot be read is none").cc("max-age=1e3"),
        row("RFC 9111, 5.2", "a time may be quoted").cc("max-age=\"60\"").want(Fresh(20)),
        row("RFC 9111, 4.2.3", "Age counts").cc("max-age=60, stale-if-error=90").said("age", "50").want(Stale(70)),
        row("RFC 9111, 4.2.3", "and so does Date")
            .cc("max-age=60, stale-if-error=90")
            .said("date", http_date(-50))
            .want(Stale(70)),
        row("RFC 9111, 4.2.3", "the older of both")
            .cc("max-age=60, stale-if-error=90")
            .said("date", http_date(-30))
            .said("age", "50")
            .want(Stale(70)),
        row("RFC 9111, 4.2.3", "a Date to come is now").cc("max-age=60").said("date", http_date(500)).want(Fresh(20)),
        // What the request says.
        row("RFC 9111, 5.2.1.4", "no-cache").cc(SIE).second("cache-control", "no-cache"),
        row("RFC 9111, 5.2.1.4", "no-cache, though it is fresh").cc("max-age=60").second("cache-control", "no-cache"),
        row("RFC 9111, 5.4", "Pragma").cc(SIE).second("pragma", "no-cache"),
        row("RFC 9111, 5.2.1.1", "max-age wants nothing stale").cc(SIE).second("cache-control", "max-age=90"),
        row("RFC 9111, 5.2.1.1", "max-age=0").cc("max-age=60").second("cache-control", "max-age=0"),
        row("RFC 9111, 5.2.1.1", "max-age that it fits")
            .cc("max-age=60")
            .second("cache-control", "max-age=20")
            .want(Fresh(20)),
        row("RFC 9111, 5.2.1.1", "max-age that it does not").cc("max-age=60").second("cache-control", "max-age=19"),
        row("RFC 9111, 5.2.1.1", "max-age, and max-stale")
            .cc(SIE)
            .second("cache-control", "max-age=10, max-stale=10")
            .want(Stale(20)),
        row("RFC 9111, 5.2.1.3", "min-fresh that it fits")
            .cc("max-age=60")
            .second("cache-control", "min-fresh=40")
            .want(Fresh(20)),
        row("RFC 9111, 5.2.1.3", "min-fresh that it does not").cc("max-age=60").second("cache-control", "min-fresh=41"),
        row("RFC 9111, 5.2.1.3", "min-fresh wants nothing stale").cc(SIE).second("cache-control", "min-fresh=0"),
        row("RFC 9111, 5.2.1.2", "max-stale takes what there is")
            .cc(SIE)
            .second("cache-control", "max-stale=10")
            .want(Stale(20)),
        row("RFC 9111, 5.2.1.2", "without a time any").cc(SIE).second("cache-control", "max-stale").want(Stale(20)),
        row("RFC 9111, 4.2.4", "on an error no more than the answer allows")
            .cc("max-age=10, stale-while-revalidate=90, stale-if-error=5")
            .max(60)
            .second("cache-control", "max-stale"),
        row("RFC 9111, 4.2.4", "or the operator").cc("max-age=10").max(5).second("cache-control", "max-stale=60"),
        row("RFC 9111, 4.2.4", "and nothing where neither does")
            .cc("max-age=10, stale-while-revalidate=90")
            .second("cache-control", "max-stale"),
        row("RFC 9111, 5.2.1.2", "with one no more than that").cc(SIE).second("cache-control", "max-stale=9"),
        row("RFC 9111, 4.2.4", "but not of must-revalidate")
            .cc("max-age=10, must-revalidate")
            .second("cache-control", "max-stale"),
        row("RFC 9111, 5.2.1.7", "only-if-cached, and it is")
            .cc("max-age=60")
            .second("cache-control", "only-if-cached")
            .then(Silent)
            .want(Fresh(20)),
        row("RFC 9111, 5.2.1.7", "only-if-cached, and it is not")
            .cc("no-store")
            .second("cache-control", "only-if-cached")
            .then(Silent)
            .want(NotStored),
        row("RFC 9111, 5.2.1.7", "only-if-cached, and it is stale")
            .cc(SIE)
            .second("cache-control", "only-if-cached")
            .then(Silent)
            .want(NotStored),
        row("RFC 9111, 5.2.1.7", "and that is welcome")
            .cc(SIE)
            .second("cache-control", "only-if-cached, max-stale")
            .then(Silent)
            .want(Stale(20)),
        // Which request it is for.
        row("RFC 9111, 4.1", "the same in what it varies by")
            .cc(SIE)
            .said("vary", "Accept-Language")
            .first("accept-language", "de")
            .second("accept-language", "de")
            .want(Stale(20)),
        row("RFC 9111, 4.1", "another")
            .cc(SIE)
            .said("vary", "Accept-Language")
            .first("accept-language", "de")
            .second("accept-language", "en"),
        row("RFC 9111, 4.1", "none").cc(SIE).said("vary", "Accept-Language").first("accept-language", "de"),
        row("RFC 9111, 4.1", "none is none").cc(SIE).said("vary", "Accept-Language").want(Stale(20)),
        row("RFC 9111, 4.1", "Vary: * is for nobody").cc(SIE).said("vary", "*"),
        row("RFC 9111, 4.1", "Vary: * among others").cc(SIE).said("vary", "accept").said("vary", "x, *"),
        row("RFC 9111, 4.1", "lines count as one list")
            .cc(SIE)
            .said("vary", "x")
            .first("x", "a")
            .first("x", "b")
            .second("x", "a, b")
            .want(Stale(20)),
        row("RFC 9111, 4", "HEAD is answered by what GET left").cc(SIE).method("HEAD").want(Stale(20)),
        row("RFC 9111, 4", "POST is not").cc(SIE).method("POST"),
        row("RFC 9110, 14.2", "a request for a part may get the whole")
            .cc(SIE)
            .second("range", "bytes=0-3")
            .want(Stale(20)),
        // Conditions.
        row("RFC 9111, 4.3.2", "If-None-Match that matches")
            .cc(SIE)
            .said("etag", "\"a\"")
            .second("if-none-match", "\"x\", \"a\"")
            .want(NotModified),
        row("RFC 9111, 4.3.2", "compared weakly")
            .cc(SIE)
            .said("etag", "W/\"a,b\"")
            .second("if-none-match", "\"a,b\"")
            .want(NotModified),
        row("RFC 9111, 4.3.2", "that does not")
            .cc(SIE)
            .said("etag", "\"a\"")
            .second("if-none-match", "\"b\"")
            .want(Stale(20)),
        row("RFC 9111, 4.3.2", "If-None-Match: *").cc(SIE).second("if-none-match", "*").want(NotModified),
        row("RFC 9111, 4.3.2", "If-Modified-Since, and it was not")
            .cc(SIE)
            .said("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT")
            .second("if-modified-since", "Sun, 06 Nov 1994 08:00:00 GMT")
            .want(NotModified),
        row("RFC 9111, 4.3.2", "and it was")
            .cc(SIE)
            .said("last-modified", "Sun, 06 Nov 1994 08:00:01 GMT")
            .second("if-modified-since", "Sun, 06 Nov 1994 08:00:00 GMT")
            .want(Stale(20)),
        row("RFC 9110, 13.1.3", "If-None-Match counts alone")
            .cc(SIE)
            .said("etag", "\"a\"")
            .said("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT")
            .second("if-none-match", "\"b\"")
            .second("if-modified-since", "Sun, 06 Nov 1994 08:00:00 GMT")
            .want(Stale(20)),
        row("RFC 9111, 4.3.2", "If-Match is for the origin").cc(SIE).said("etag", "\"a\"").second("if-match", "\"a\""),
        row("RFC 9111, 4.3.2", "only what is a 200 becomes a 304")
            .status(404)
            .cc(SIE)
            .second("if-none-match", "*")
            .want(Stale(20)),
        // A cache, which gives what is fresh without asking.
        row("RFC 9111, 4.2", "fresh: the origin is not asked").cache().cc("max-age=60").then(Silent).want(Fresh(20)),
        row("RFC 9111, 4.2", "stale: it is").cache().cc("max-age=10").then(Status(200)),
        row("RFC 9111, 4.2", "fresh to the last second")
            .cache()
            .cc("max-age=20")
            .after(19)
            .then(Silent)
            .want(Fresh(19)),
        row("RFC 9111, 4.2", "and then no more").cache().cc("max-age=20").then(Status(200)),
        row("RFC 9111, 5.2.1.4", "no-cache asks")
            .cache()
            .cc("max-age=60")
            .second("cache-control", "no-cache")
            .then(Status(200)),
        row("RFC 9111, 5.2.1.1", "max-age=0 asks")
            .cache()
            .cc("max-age=60")
            .second("cache-control", "max-age=0")
            .then(Status(200)),
        row("RFC 5861, 3", "stale-while-revalidate")
            .cache()
            .cc("max-age=10, stale-while-revalidate=90")
            .then(Silent)
            .want(Stale(20)),
        row("RFC 5861, 3", "for so long").cache().cc("max-age=10, stale-while-revalidate=9").then(Status(200)),
        row("RFC 5861, 3", "not with must-revalidate")
            .cache()
            .cc("max-age=10, must-revalidate, stale-while-revalidate=90")
            .then(Status(200)),
        row("stale.max", "is for failures").cache().cc("max-age=10").max(60).then(Status(200)),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_row() {
    let mut wrong = Vec::new();
    for row in rows() {
        let want = row.want;
        let name = format!("{}: {}", row.rule, row.what);
        let got = run(row).await;
        if got != Ok(want) {
            wrong.push(format!("{name}: {got:?}, not {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn run(row: Row) -> Result<Want, String> {
    let config = StaleConfig::default().max(row.max.map(Duration::from_secs)).cache(row.cache);
    let world = world(config);
    let said: Vec<_> = row.said.iter().map(|(name, value)| (*name, value.as_str())).collect();
    world.origin.says(Ok(response(row.status, &said, "stored")));
    let first = world.get("http://a.test/x", &row.first).await;
    if first.status != row.status || first.header("x-degraded").is_some() {
        return Err(format!("the first request got {first:?}"));
    }
    after(row.after).await;
    let answer: Answer = match row.then {
        Then::Status(status) => Ok(response(status, &[], "origin")),
        Then::Busy => Ok(response(503, &[("retry-after", "5")], "origin")),
        Then::Error => Err(BoxError::from("no connection")),
        Then::Refuses(reason) => {
            let mut res = response(reason.status(), &[], "origin");
            res.extensions_mut().insert(Rejection::new(reason, "inner"));
            Ok(res)
        }
        // In the background it may be asked, and then fails.
        Then::Silent => Ok(response(500, &[], "background")),
    };
    world.origin.says(answer);
    let before = world.origin.calls();
    let got = match world.try_send(request(row.method, "http://a.test/x", &row.second)).await {
        Ok(got) => got,
        Err(_) => return Ok(Want::Origin),
    };
    let asked = world.origin.calls() - before;
    let age = got.header("age").map(|age| age.parse().unwrap());
    let body = if row.method == "HEAD" { "" } else { "stored" };
    match (&*got.body, got.degraded.is_some(), age) {
        (b"origin", false, None) => Ok(Want::Origin),
        (b"", _, Some(_)) if got.status == 304 && asked == 1 => Ok(Want::NotModified),
        _ if got.status == 504 && asked == 0 && got.body != "origin" => Ok(Want::NotStored),
        (stored, degraded, Some(age)) if stored == body.as_bytes() && got.status == row.status => {
            let status = got.header("cache-status").ok_or("no Cache-Status")?;
            if !status.starts_with("buttress; hit; ttl=") {
                return Err(format!("it says `{status}`"));
            }
            let is_stale = status.starts_with("buttress; hit; ttl=-") || status.contains("; detail=stale");
            let spared = asked == 0;
            if spared != (row.then == Then::Silent) {
                return Err(format!("the origin was asked {asked} times"));
            }
            // In place of a failure also a fresh one is marked.
            if degraded != (is_stale || !spared) {
                return Err(format!("degraded: {degraded}, {status}"));
            }
            let marked = got.header("x-degraded").is_some_and(|mark| mark.starts_with("stale; cause="));
            if marked != degraded {
                return Err(format!("marked: {marked}"));
            }
            Ok(if is_stale { Want::Stale(age) } else { Want::Fresh(age) })
        }
        _ => Err(format!("{got:?}")),
    }
}

/// RFC 9111, 4.4: what an unsafe method changes is not given any more.
#[tokio::test(start_paused = true)]
async fn a_success_of_an_unsafe_method_invalidates() {
    for (method, status, said, gone) in [
        ("POST", 200, &[][..], &["/x"][..]),
        ("PUT", 204, &[], &["/x"]),
        ("DELETE", 303, &[], &["/x"]),
        ("PATCH", 200, &[], &["/x"]),
        ("BREW", 200, &[], &["/x"]),
        ("POST", 400, &[], &[]),
        ("POST", 500, &[], &[]),
        ("POST", 201, &[("location", "/y")], &["/x", "/y"]),
        ("POST", 201, &[("location", "http://A.test/y")], &["/x", "/y"]),
        ("POST", 201, &[("content-location", "y")], &["/x", "/y"]),
        ("POST", 201, &[("location", "http://other.test/y")], &["/x"]),
        ("OPTIONS", 200, &[], &[]),
    ] {
        let world = world(StaleConfig::default());
        for path in ["/x", "/y"] {
            world.store(&format!("http://a.test{path}"), &[], &[("cache-control", SIE)], "stored").await;
        }
        after(20).await;
        world.origin.says(Ok(response(status, said, "")));
        world.send(request(method, "http://a.test/x", &[])).await;
        for path in ["/x", "/y"] {
            let got = world.get(&format!("http://a.test{path}"), &[]).await;
            assert_eq!(got.status == 500, gone.contains(&path), "{method} {status} {said:?}, {path}");
        }
        assert_eq!(world.stale.snapshot().invalidated_total, gone.len() as u64);
    }
}

/// RFC 9111, 4.3.4 and 3.2: a 304 makes the stored answer that it speaks of fresh again.
#[tokio::test(start_paused = true)]
async fn a_304_freshens() {
    type Case = (Pairs<'static>, u16, u64, &'static str);
    const CASES: [Case; 6] = [
        (&[("etag", "\"a\"")], 200, 1, "the same tag"),
        (&[("etag", "\"b\"")], 500, 0, "another tag"),
        (&[], 500, 0, "nothing that says which"),
        (&[("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT")], 200, 1, "the same date"),
        (&[("etag", "\"a\""), ("cache-control", "no-store")], 500, 0, "it is for nobody any more"),
        (&[("etag", "\"a\""), ("set-cookie", "a=b")], 500, 0, "it is for one"),
    ];
    for (said, status, freshened, what) in CASES {
        let world = world(StaleConfig::default());
        let validators = [
            ("cache-control", "max-age=30"),
            ("etag", "\"a\""),
            ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT"),
            ("x", "1"),
        ];
        world.store("http://a.test/x", &[], &validators, "stored").await;
        after(25).await;
        let mut not_modified = response(304, said, "");
        not_modified.headers_mut().insert("x", "2".parse().unwrap());
        not_modified.headers_mut().insert("content-type", "text/odd".parse().unwrap());
        world.origin.says(Ok(not_modified));
        let got = world.get("http://a.test/x", &[("if-none-match", "\"a\"")]).await;
        assert_eq!((got.status, got.header("x")), (304, Some("2")), "{what}: the client's own 304 passes");
        after(25).await;
        let got = world.get("http://a.test/x", &[]).await;
        assert_eq!(got.status, status, "{what}");
        assert_eq!(world.stale.snapshot().freshened_total, freshened, "{what}");
        if status == 200 {
            assert_eq!((got.header("age"), got.header("x"), &*got.body), (Some("25"), Some("2"), &b"stored"[..]));
            assert_eq!(got.header("content-type"), None, "a 304 has no content of which it could say the type");
        }
    }
}

/// RFC 9111, 3.1: fields of one connection are not kept.
#[tokio::test(start_paused = true)]
async fn hop_by_hop_fields_are_not_given() {
    let world = world(StaleConfig::default());
    let said = [
        ("cache-control", SIE),
        ("connection", "x-hop, close"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("transfer-encoding", "chunked"),
        ("cache-status", "other; fwd=miss"),
        ("x-kept", "1"),
        ("x-kept", "2"),
    ];
    world.store("http://a.test/x", &[], &said, "stored").await;
    after(20).await;
    let got = world.get("http://a.test/x", &[]).await;
    let names: std::collections::BTreeSet<_> = got.headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["age", "cache-control", "cache-status", "date", "x-degraded", "x-kept"].into());
    let all = |name| got.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("x-kept"), ["1", "2"]);
    assert_eq!(all("cache-status"), ["other; fwd=miss", "buttress; hit; ttl=-10; detail=stale-if-error"]);
    assert_eq!(got.degraded, Some(Degraded::new(DegradedBy::Stale, Cause::Failure).to_string()));
}
