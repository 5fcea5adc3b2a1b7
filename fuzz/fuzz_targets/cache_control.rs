//! `Cache-Control`: no bytes make the parser panic, times have a bound, and nothing that stands before a directive hides it.
#![no_main]

use buttress_fallback::CacheControl;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let mut said = CacheControl::default();
    said.read(line);
    let times = [
        said.max_age,
        said.s_maxage,
        said.stale_if_error,
        said.stale_while_revalidate,
        said.min_fresh,
        said.max_stale,
    ];
    assert!(times.into_iter().flatten().all(|seconds| seconds <= 1 << 31));

    let mut longer = CacheControl::default();
    longer.read(&[line, b", max-age=7, no-store"].concat());
    assert!(longer.no_store);
    assert!(longer.private >= said.private && longer.must_revalidate >= said.must_revalidate);

    // Another line can only make it stricter.
    let mut twice = said;
    twice.read(b"max-age=7, no-cache");
    assert!(twice.no_cache && twice.no_store == said.no_store && twice.max_age <= Some(7));
});
