//! Figures from what became of the calls.

use std::{ops::Range, time::Duration};

/// What became of one call. Times are since the beginning of the run.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// When it was to come.
    pub at: Duration,
    /// When its client had an answer, or gave up.
    pub ended: Duration,
    pub end: End,
    /// How long after `at` it was begun: the generator's own lateness.
    pub late: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// An answer in time.
    Good,
    Refused,
    Failed,
    /// The client gave up.
    TimedOut,
}

/// A run: its calls, and when attempts were sent.
pub struct Run {
    pub records: Vec<Record>,
    pub sent: Vec<Duration>,
}

/// What became of the calls that came in a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    pub calls: usize,
    /// Shares of the calls.
    pub good: f64,
    pub refused: f64,
    pub failed: f64,
    pub timed_out: f64,
    /// Answers in time that came in the span, per second.
    pub rate: f64,
    /// The same, second by second.
    pub series: Vec<usize>,
    /// Of good ones; `None` where there are none.
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
    /// Attempts that were sent in the span, for each call that came.
    pub amplification: f64,
}

/// A piece of a span.
struct Bin {
    calls: usize,
    good: usize,
    sent: usize,
}

impl Run {
    pub fn tally(&self, span: &Range<Duration>) -> Tally {
        let came: Vec<_> = self.records.iter().filter(|call| span.contains(&call.at)).collect();
        let share = |end| over(came.iter().filter(|call| call.end == end).count(), came.len());
        let good = || self.records.iter().filter(|call| call.end == End::Good);
        let ended: Vec<_> = good().filter(|call| span.contains(&call.ended)).map(|call| call.ended).collect();
        let mut latencies: Vec<_> =
            came.iter().filter(|call| call.end == End::Good).map(|call| call.ended - call.at).collect();
        latencies.sort_unstable();
        let seconds = (span.end - span.start).as_secs_f64();
        let mut series = vec![0; seconds.ceil() as usize];
        ended.iter().for_each(|at| series[(*at - span.start).as_secs() as usize] += 1);
        Tally {
            calls: came.len(),
            good: share(End::Good),
            refused: share(End::Refused),
            failed: share(End::Failed),
            timed_out: share(End::TimedOut),
            rate: ended.len() as f64 / seconds,
            series,
            p50: quantile(&latencies, 0.50),
            p99: quantile(&latencies, 0.99),
            amplification: over(self.sent.iter().filter(|at| span.contains(at)).count(), came.len()),
        }
    }

    /// How long after `since` all was well again: of the calls that came in each bin of the two seconds from then on nine in ten
    /// ended well. `None`: not before the run was over.
    pub fn recovery(&self, since: Duration, end: Duration, width: Duration) -> Option<Duration> {
        let bins = self.bins(since..end, width);
        let steady = (2.0 / width.as_secs_f64() - 1e-9).ceil() as usize;
        let well = |bins: &[Bin]| bins.iter().all(|bin| bin.good as f64 >= 0.9 * bin.calls as f64);
        bins.windows(steady.max(1)).position(well).map(|n| width * n as u32)
    }

    /// How long it took to notice: to the end of the first bin of the span in which fewer attempts were sent than half of the calls
    /// that came. `None`: it was not noticed.
    pub fn detection(&self, fault: Range<Duration>, width: Duration) -> Option<Duration> {
        let spared = |bin: &Bin| (bin.sent as f64) < 0.5 * bin.calls as f64;
        self.bins(fault, width).iter().position(spared).map(|n| width * (n as u32 + 1))
    }

    /// The generator's own lateness.
    pub fn late(&self, q: f64) -> Duration {
        let mut late: Vec<_> = self.records.iter().map(|call| call.late).collect();
        late.sort_unstable();
        quantile(&late, q).unwrap_or_default()
    }

    /// Whole ones only.
    fn bins(&self, span: Range<Duration>, width: Duration) -> Vec<Bin> {
        let count = ((span.end - span.start).as_secs_f64() / width.as_secs_f64() + 1e-9) as usize;
        let mut bins: Vec<_> = (0..count).map(|_| Bin { calls: 0, good: 0, sent: 0 }).collect();
        let bin = |at: Duration| Some((at.checked_sub(span.start)?.as_secs_f64() / width.as_secs_f64()) as usize);
        for call in &self.records {
            if let Some(bin) = bin(call.at).and_then(|n| bins.get_mut(n)) {
                bin.calls += 1;
                bin.good += usize::from(call.end == End::Good);
            }
        }
        for at in &self.sent {
            if let Some(bin) = bin(*at).and_then(|n| bins.get_mut(n)) {
                bin.sent += 1;
            }
        }
        bins
    }
}

/// The least value that a share of `q` does not exceed.
pub fn quantile(sorted: &[Duration], q: f64) -> Option<Duration> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

fn over(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn call(at: u64, took: u64, end: End) -> Record {
        Record { at: millis(at), ended: millis(at + took), end, late: millis(took / 10) }
    }

    /// A call each millisecond, which ends as `end` says, and is sent as often as `sent` says.
    fn run(length: u64, end: impl Fn(u64) -> End, sent: impl Fn(u64) -> usize) -> Run {
        Run {
            records: (0..length).map(|at| call(at, 10, end(at))).collect(),
            sent: (0..length).flat_map(|at| vec![millis(at); sent(at)]).collect(),
        }
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let hundred: Vec<_> = (1..=100).map(millis).collect();
        assert_eq!(quantile(&hundred, 0.5), Some(millis(50)));
        assert_eq!(quantile(&hundred, 0.99), Some(millis(99)));
        assert_eq!(quantile(&hundred, 1.0), Some(millis(100)));
        assert_eq!(quantile(&hundred[..1], 0.0), Some(millis(1)));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn shares_are_of_the_calls_that_came_and_the_rate_of_answers_that_came() {
        let records = vec![
            // Came before, is answered in the span: counts for the rate alone.
            call(900, 200, End::Good),
            call(1000, 20, End::Good),
            call(1100, 1, End::Refused),
            call(1200, 500, End::TimedOut),
            // Came in the span, is answered after it.
            call(2990, 40, End::Good),
            call(3000, 20, End::Failed),
        ];
        let sent = [900, 1000, 1200, 1250, 2990, 3000].map(millis).to_vec();
        let tally = Run { records, sent }.tally(&(millis(1000)..millis(3000)));
        assert_eq!((tally.calls, tally.good, tally.refused), (4, 0.5, 0.25));
        assert_eq!((tally.timed_out, tally.failed), (0.25, 0.0));
        assert_eq!((tally.rate, tally.series), (1.0, vec![2, 0]));
        assert_eq!((tally.p50, tally.p99), (Some(millis(20)), Some(millis(40))));
        assert_eq!(tally.amplification, 1.0);
    }

    #[test]
    fn recovered_is_who_stays_well_for_two_seconds() {
        let ill = |at| if (1000..1400).contains(&at) || (1600..1650).contains(&at) { End::Failed } else { End::Good };
        let recovered = |length| run(length, ill, |_| 1).recovery(millis(1000), millis(length), millis(50));
        assert_eq!(recovered(5000), Some(millis(650)));
        assert_eq!(recovered(3500), None, "two seconds of health were not seen");
    }

    #[test]
    fn an_outage_is_noticed_when_less_than_half_is_sent() {
        let sent = |at| if at < 1100 { 1 } else { usize::from(at % 4 == 0) };
        let run = run(2000, |_| End::Failed, sent);
        assert_eq!(run.detection(millis(1000)..millis(2000), millis(50)), Some(millis(150)));
        assert_eq!(run.detection(millis(1000)..millis(1100), millis(50)), None);
    }

    #[test]
    fn lateness_is_a_quantile_of_all_calls() {
        let records = vec![call(0, 10, End::Good), call(1, 20, End::Good), call(2, 90, End::Refused)];
        let run = Run { records, sent: Vec::new() };
        assert_eq!((run.late(0.5), run.late(0.99)), (millis(2), millis(9)));
    }
}
