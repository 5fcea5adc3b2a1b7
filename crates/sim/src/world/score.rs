use super::{Upstream, nanos};
use buttress_core::{Priority, Reason};
use std::{fmt, ops::Range, time::Duration};

/// What became of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallRecord {
    /// When it came, in nanoseconds since the world's beginning.
    pub arrived: u64,
    /// When its client had an answer, or gave up.
    pub ended: u64,
    /// How it ended.
    pub end: End,
    /// How important it was.
    pub priority: Priority,
    /// Whose it was.
    pub tenant: u32,
    /// Which of the world's loads it belongs to.
    pub load: u32,
    /// How often it came to an upstream.
    pub sent: u32,
    /// The work that its answer took, in nanoseconds of a worker in good health.
    pub work: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It has not.
    #[default]
    Pending,
    /// With an answer in time.
    Good,
    /// A layer refused it.
    Refused(Reason),
    /// With an error.
    Failed,
    /// Its client gave up.
    TimedOut,
}

/// What became of the calls of a span of time. A call that has not ended yet is not a good one: let the world run on for as long as
/// clients wait before you ask.
///
/// Of nothing there is no share and no quantile: shares are then 1 (what is refused: 0), latencies 0. Who asserts one asks
/// [`count`](Self::count) as well, or a test in which nothing was served passes.
///
/// Its `Debug` is a summary of a line, for the message of an assertion; each call is in [`calls`](Self::calls).
#[derive(Clone)]
#[non_exhaustive]
pub struct Score {
    /// The calls that arrived in it, in the order of their arrival.
    pub calls: Vec<CallRecord>,
    /// The span.
    pub span: Range<Duration>,
    /// Work that clients brought, in seconds of a worker in good health: that of their first attempts.
    pub offered: f64,
    /// Work that upstreams could do in the span, in seconds of a worker in good health.
    pub capacity: f64,
    /// Work that could have been answered: the lesser of both, second by second.
    pub achievable: f64,
    /// Work that was answered in time, of calls that ended in the span.
    pub useful: f64,
    /// How many calls came to upstreams in the span.
    pub sent: u64,
    /// Nanoseconds from arrival to answer of the good ones, sorted.
    latencies: Vec<u64>,
    sent_times: Vec<u64>,
    offered_work: Vec<u64>,
    /// When good calls ended, however early they came, with their work and latency, in order of their ends.
    ends: Vec<(u64, u64, u64)>,
}

/// A span of a [`Score`]'s series.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Bin {
    /// When it begins, in seconds since the world's beginning.
    pub at: f64,
    /// Calls that arrived in it.
    pub arrived: u64,
    /// Of those, how many ended well.
    pub good: u64,
    /// Of those, how many were refused.
    pub refused: u64,
    /// Calls that came to upstreams in it.
    pub sent: u64,
    /// Work that was answered in it, in seconds of a worker.
    pub useful: f64,
    /// Good calls that ended in it.
    pub ended: u64,
    /// Median latency of good calls that ended in it, in seconds.
    pub p50: f64,
    /// 99th percentile of that.
    pub p99: f64,
}

impl Bin {
    /// The share of the calls that arrived in it and ended well; 1 where none arrived.
    pub fn good_share(&self) -> f64 {
        if self.arrived == 0 { 1.0 } else { self.good as f64 / self.arrived as f64 }
    }
}

impl Score {
    pub(super) fn new(records: &[CallRecord], upstreams: &[&Upstream], span: Range<Duration>) -> Self {
        let (from, to) = (nanos(span.start), nanos(span.end.max(span.start)));
        let within = |at: u64| (from..to).contains(&at);
        let mut calls = Vec::new();
        let mut offered_work = Vec::new();
        let mut ends = Vec::new();
        for (id, call) in records.iter().enumerate() {
            if within(call.arrived) {
                calls.push(*call);
                offered_work.push(upstreams.first().map_or(0, |upstream| upstream.work_of(id as u64, 0).0));
            }
            if call.end == End::Good && within(call.ended) {
                ends.push((call.ended, call.work, call.ended - call.arrived));
            }
        }
        ends.sort_unstable();
        let mut latencies: Vec<u64> =
            calls.iter().filter(|call| call.end == End::Good).map(|call| call.ended - call.arrived).collect();
        latencies.sort_unstable();
        let mut sent_times: Vec<u64> =
            upstreams.iter().flat_map(|upstream| upstream.sent_times()).filter(|at| within(*at)).collect();
        sent_times.sort_unstable();
        let capacity_of = |from, to| upstreams.iter().map(|upstream| upstream.capacity(from, to)).sum::<f64>();
        const SECOND: u64 = 1_000_000_000;
        let mut work_per_second = vec![0.0; usize::try_from((to - from).div_ceil(SECOND)).unwrap_or(0)];
        for (call, work) in calls.iter().zip(&offered_work) {
            work_per_second[((call.arrived - from) / SECOND) as usize] += *work as f64;
        }
        let seconds = (from..to).step_by(SECOND as usize);
        let achievable = seconds
            .zip(&work_per_second)
            .map(|(at, work)| work.min(capacity_of(at, (at + SECOND).min(to))))
            .sum::<f64>();
        Self {
            offered: work_per_second.iter().sum::<f64>() / 1e9,
            capacity: capacity_of(from, to) / 1e9,
            achievable: achievable / 1e9,
            useful: ends.iter().map(|(_, work, _)| *work as f64).sum::<f64>() / 1e9,
            sent: sent_times.len() as u64,
            calls,
            span,
            latencies,
            sent_times,
            offered_work,
            ends,
        }
    }

    /// Useful work by what was achievable.
    pub fn goodput(&self) -> f64 {
        if self.achievable > 0.0 { self.useful / self.achievable } else { 1.0 }
    }

    /// The share of the calls that ended well.
    pub fn good_share(&self) -> f64 {
        self.share(|_| true)
    }

    /// The share of those calls that ended well; 1 where there are none.
    pub fn share(&self, which: impl Fn(&CallRecord) -> bool) -> f64 {
        let (mut all, mut good) = (0_u64, 0_u64);
        for call in self.calls.iter().filter(|call| which(call)) {
            all += 1;
            good += u64::from(call.end == End::Good);
        }
        if all == 0 { 1.0 } else { good as f64 / all as f64 }
    }

    /// The share of the calls of that class that ended well.
    pub fn class(&self, priority: Priority) -> f64 {
        self.share(|call| call.priority == priority)
    }

    /// How many calls ended so.
    pub fn count(&self, which: impl Fn(End) -> bool) -> u64 {
        self.calls.iter().filter(|call| which(call.end)).count() as u64
    }

    /// The share of the calls that a layer refused.
    pub fn refused_share(&self) -> f64 {
        self.count(|end| matches!(end, End::Refused(_))) as f64 / (self.calls.len().max(1)) as f64
    }

    /// The quantile `q` of the latency of good calls; zero where there are none, which is not fast: see [`count`](Self::count).
    pub fn latency(&self, q: f64) -> Duration {
        Duration::from_nanos(quantile(&self.latencies, q))
    }

    /// How many calls came to upstreams for each that clients made.
    pub fn amplification(&self) -> f64 {
        self.sent as f64 / self.calls.len().max(1) as f64
    }

    /// The work, in seconds, that the first attempts of those calls bring.
    pub fn offered_by(&self, which: impl Fn(&CallRecord) -> bool) -> f64 {
        let works = self.calls.iter().zip(&self.offered_work);
        works.filter(|(call, _)| which(call)).map(|(_, work)| *work as f64 / 1e9).sum()
    }

    /// What happened, span by span of this width; the last one may be shorter.
    ///
    /// # Panics
    ///
    /// If the width is zero.
    pub fn series(&self, width: Duration) -> Vec<Bin> {
        self.bins(nanos(self.span.start), nanos(self.span.end), width)
    }

    fn bins(&self, from: u64, to: u64, width: Duration) -> Vec<Bin> {
        let width = nanos(width);
        assert!(width > 0, "a bin needs a width");
        let mut bins: Vec<Bin> =
            (from..to).step_by(width as usize).map(|at| Bin { at: at as f64 / 1e9, ..Bin::default() }).collect();
        // Who came or ended before or after has no bin.
        let bin = |at: u64| at.checked_sub(from).map(|after| (after / width) as usize);
        for call in &self.calls {
            let Some(bin) = bin(call.arrived).and_then(|n| bins.get_mut(n)) else { continue };
            bin.arrived += 1;
            bin.good += u64::from(call.end == End::Good);
            bin.refused += u64::from(matches!(call.end, End::Refused(_)));
        }
        for at in &self.sent_times {
            if let Some(bin) = bin(*at).and_then(|n| bins.get_mut(n)) {
                bin.sent += 1;
            }
        }
        for ended in self.ends.chunk_by(|a, b| bin(a.0) == bin(b.0)) {
            let mut latencies: Vec<u64> = ended.iter().map(|(_, _, latency)| *latency).collect();
            latencies.sort_unstable();
            let Some(bin) = bin(ended[0].0).and_then(|n| bins.get_mut(n)) else { continue };
            bin.ended = ended.len() as u64;
            bin.useful = ended.iter().map(|(_, work, _)| *work as f64 / 1e9).sum();
            bin.p50 = quantile(&latencies, 0.5) as f64 / 1e9;
            bin.p99 = quantile(&latencies, 0.99) as f64 / 1e9;
        }
        bins
    }

    /// The bins of this width from `since` to the end of the span: whole ones only.
    fn whole_bins(&self, since: Duration, width: Duration) -> Vec<Bin> {
        let from = nanos(since.max(self.span.start));
        let length = nanos(self.span.end).saturating_sub(from);
        let rest = length % nanos(width).max(1);
        self.bins(from, from + length - rest, width)
    }

    /// How long after `since` things were well again: the calls that came in each of the bins of this width, of the two seconds
    /// from then on (or a little more: whole bins, one at least), ended well, all but a tenth. Bins begin with `since`, or with the
    /// span if that is later. `None`: not before the span was over, which has to show two such seconds.
    ///
    /// # Panics
    ///
    /// If the width is zero.
    pub fn recovery(&self, since: Duration, width: Duration) -> Option<Duration> {
        const STEADY: Duration = Duration::from_secs(2);
        let bins = self.whole_bins(since, width);
        let steady = usize::try_from(nanos(STEADY).div_ceil(nanos(width))).ok()?;
        let well = |bins: &[Bin]| bins.iter().all(|bin| bin.good_share() >= 0.9);
        let from = bins.windows(steady).position(well)?;
        Some(Duration::from_secs_f64(bins[from].at).saturating_sub(since))
    }

    /// How long after `since` upstreams had got less than `share` of the calls that came in a bin of that width: how long it took to
    /// notice, up to the end of that bin. Bins begin with `since`, or with the span if that is later. `None`: never.
    ///
    /// # Panics
    ///
    /// If the width is zero.
    pub fn detection(&self, since: Duration, share: f64, width: Duration) -> Option<Duration> {
        let spared = |bin: &Bin| (bin.sent as f64) < share * bin.arrived as f64;
        let noticed = self.whole_bins(since, width).into_iter().find(spared)?;
        Some((Duration::from_secs_f64(noticed.at) + width).saturating_sub(since))
    }
}

impl fmt::Debug for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Score")
            .field("span", &self.span)
            .field("calls", &self.calls.len())
            .field("goodput", &self.goodput())
            .field("good_share", &self.good_share())
            .field("refused_share", &self.refused_share())
            .field("p50", &self.latency(0.5))
            .field("p99", &self.latency(0.99))
            .field("amplification", &self.amplification())
            .finish_non_exhaustive()
    }
}

fn quantile(sorted: &[u64], q: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((q * last as f64).round() as usize).copied().unwrap_or(0)
}

/// Jain's index of fairness (Jain, Chiu and Hawe, 1984): 1 if all have the same, 1/n if one has all.
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares > 0.0 { sum * sum / (shares.len() as f64 * squares) } else { 1.0 }
}
