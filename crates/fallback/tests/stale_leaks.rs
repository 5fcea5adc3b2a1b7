//! Whatever headers requests and answers have: what is for one user is given to nobody else.
#![cfg(feature = "http")]

mod origin;

use buttress_fallback::StaleConfig;
use origin::*;
use proptest::{prelude::*, strategy::ValueTree};
use std::time::Duration;

/// A directive, and whether it is one of those that keep an answer from being stored, from being used stale.
const DIRECTIVES: [(&str, bool, bool); 20] = [
    ("no-store", true, true),
    ("private", true, true),
    ("private=\"x-name\"", true, true),
    ("no-cache", true, true),
    ("no-cache=\"set-cookie, x\"", true, true),
    ("NO-STORE", true, true),
    ("Private", true, true),
    ("s-maxage=5", false, true),
    ("S-MaxAge=\"5\"", false, true),
    ("must-revalidate", false, true),
    ("proxy-revalidate", false, true),
    ("max-age=5", false, false),
    ("max-age=1000", false, false),
    ("stale-if-error=1000", false, false),
    ("stale-while-revalidate=1000", false, false),
    ("immutable", false, false),
    ("ext=\"a, \\\" b\"", false, false),
    ("community=\"UCI\"", false, false),
    ("no-transform", false, false),
    ("", false, false),
];

#[derive(Clone, Debug)]
struct Said {
    directives: Vec<usize>,
    /// One directive a line, or all on one.
    lines: bool,
    public: bool,
    set_cookie: bool,
    /// What it varies by.
    vary: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Asked {
    path: u8,
    head: bool,
    headers: Vec<(&'static str, &'static str)>,
}

fn said() -> impl Strategy<Value = Said> {
    let directives = prop::collection::vec(0..DIRECTIVES.len(), 0..4);
    let vary =
        prop::collection::vec(prop::sample::select(vec!["*", "Accept", "x-user", "accept-language", "cookie"]), 0..3);
    // Half of them are harmless, so that many are stored.
    let mild = prop::collection::vec(11..DIRECTIVES.len(), 0..3);
    (prop_oneof![directives, mild], any::<bool>(), any::<bool>(), prop::bool::weighted(0.2), vary)
        .prop_map(|(directives, lines, public, set_cookie, vary)| Said { directives, lines, public, set_cookie, vary })
}

fn asked() -> impl Strategy<Value = Asked> {
    let field = |name: &'static str, values: &'static [&'static str]| {
        prop::option::weighted(0.3, prop::sample::select(values).prop_map(move |value| (name, value)))
    };
    let headers = (
        field("authorization", &["Basic YQ==", "Bearer b"]),
        field("cookie", &["user=a", "user=b"]),
        field("accept", &["text/html", "*/*"]),
        field("x-user", &["a", "b"]),
        field("accept-language", &["de", "en"]),
        field("cache-control", &["no-store", "max-stale", "max-stale=1000", "max-age=1000", "no-cache"]),
        field("range", &["bytes=0-1"]),
    );
    (0..2u8, prop::bool::weighted(0.1), headers).prop_map(|(path, head, (a, b, c, d, e, f, g))| Asked {
        path,
        head,
        headers: [a, b, c, d, e, f, g].into_iter().flatten().collect(),
    })
}

impl Said {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut directives: Vec<_> = self.directives.iter().map(|at| DIRECTIVES[*at].0.to_owned()).collect();
        if self.public {
            directives.push("public".to_owned());
        }
        let mut pairs = Vec::new();
        if self.lines {
            pairs.extend(directives.into_iter().map(|directive| ("cache-control", directive)));
        } else {
            pairs.push(("cache-control", directives.join(" ,")));
        }
        if self.set_cookie {
            pairs.push(("set-cookie", "session=1".to_owned()));
        }
        pairs.extend(self.vary.iter().map(|name| ("vary", (*name).to_owned())));
        pairs
    }

    fn is(&self, which: impl Fn(&(&str, bool, bool)) -> bool) -> bool {
        self.directives.iter().any(|at| which(&DIRECTIVES[*at]))
    }
}

impl Asked {
    fn has(&self, name: &str) -> Option<&'static str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn is_personal(&self) -> bool {
        self.has("authorization").is_some() || self.has("cookie").is_some()
    }
}

fn check(stored: Vec<(Asked, Said)>, later: Vec<Asked>, cache: bool) -> Result<u64, TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = world(StaleConfig::default().max(Duration::from_secs(1000)).cache(cache));
        let path = |asked: &Asked| format!("http://a.test/{}", asked.path);
        // Whose answer this is, if it is none of this request.
        let verify = |asked: &Asked, got: &Got, at: usize, now: u64| -> Result<(), TestCaseError> {
            let text = std::str::from_utf8(&got.body).unwrap();
            let Some(whose) = text.strip_prefix("answer ").map(|id| id.parse::<usize>().unwrap()) else {
                return Ok(());
            };
            if whose == at {
                return Ok(());
            }
            let (first, said) = &stored[whose];
            let what = format!("{asked:?} got what {first:?} was told with {said:?}");
            prop_assert_eq!(asked.path, first.path, "{}", what);
            prop_assert!(!said.is(|directive| directive.1), "{}", what);
            prop_assert!(!said.set_cookie && !said.vary.contains(&"*"), "{}", what);
            prop_assert!(said.public || !(asked.is_personal() || first.is_personal()), "{}", what);
            prop_assert!(first.has("cache-control") != Some("no-store") && first.has("range").is_none(), "{}", what);
            prop_assert!(asked.has("cache-control") != Some("no-cache"), "{}", what);
            for name in &said.vary {
                let name = name.to_ascii_lowercase();
                prop_assert_eq!(asked.has(&name), first.has(&name), "{}", what);
            }
            // A second a request: 5 s fresh at most, where `s-maxage=5` says so.
            if said.is(|directive| directive.2) && !said.is(|directive| directive.0 == "max-age=1000") {
                prop_assert!(now - (whose as u64) < 5, "{}", what);
            }
            if said.is(|directive| directive.0.to_ascii_lowercase().starts_with("s-maxage")) {
                prop_assert!(now - (whose as u64) < 5, "{}", what);
            }
            Ok(())
        };
        let mut now = 0;
        for (at, (asked, said)) in stored.iter().enumerate() {
            let pairs = said.pairs();
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let body = if asked.head { String::new() } else { format!("answer {at}") };
            let before = world.origin.calls();
            world.origin.says(Ok(response(200, &pairs, &body)));
            let method = if asked.head { "HEAD" } else { "GET" };
            let got = world.send(request(method, &path(asked), &asked.headers)).await;
            verify(asked, &got, at, now)?;
            // In the background, or not at all: the answer is nobody's.
            world.origin.forget();
            prop_assert!(cache || world.origin.calls() == before + 1);
            after(1).await;
            now += 1;
        }
        let mut given = 0;
        for asked in &later {
            let got = world.send(request("GET", &path(asked), &asked.headers)).await;
            given += u64::from(got.status == 200);
            verify(asked, &got, usize::MAX, now)?;
            after(1).await;
            now += 1;
        }
        Ok(given)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_gets_what_is_for_another(
        stored in prop::collection::vec((asked(), said()), 1..6),
        later in prop::collection::vec(asked(), 1..6),
        cache: bool,
    ) {
        check(stored, later, cache)?;
    }
}

/// The property above says something only if answers are given.
#[test]
fn many_answers_are_given() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut given = 0;
    let strategy = (prop::collection::vec((asked(), said()), 1..6), prop::collection::vec(asked(), 1..6));
    for _ in 0..300 {
        let (stored, later) = strategy.new_tree(&mut runner).unwrap().current();
        given += check(stored, later, false).unwrap();
    }
    assert!(given > 50, "{given}");
}

/// What origins write by mistake, above all semicolons: what was meant is not guessed.
#[tokio::test(start_paused = true)]
async fn what_is_written_wrongly_is_not_stored() {
    for said in [
        &b"private; max-age=600"[..],
        b"no-store; private",
        b"max-age=600; private",
        b"max-age=\"600\"; private",
        b"private max-age=600",
        b"max-age=600 no-store",
        b"\"private\", max-age=600",
        b"'private'",
        b"=private",
        b"private\t;",
        b"private\xa0",
        b"max-age=600, private\xa0",
    ] {
        let world = world(StaleConfig::default().max(Duration::from_secs(600)));
        let mut res = response(200, &[], "alice's");
        res.headers_mut().insert("cache-control", http::HeaderValue::from_bytes(said).unwrap());
        world.origin.says(Ok(res));
        world.get("http://a.test/", &[("x-api-key", "alice")]).await;
        let text = String::from_utf8_lossy(said);
        assert_eq!(world.get("http://a.test/", &[("x-api-key", "bob")]).await.status, 500, "{text}");
        assert_eq!(world.stale.snapshot().stored_total, 0, "{text}");
    }
}
