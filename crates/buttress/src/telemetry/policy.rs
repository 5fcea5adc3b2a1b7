use super::{End, Measured, Side, TelemetryConfig, TelemetrySnapshot, snapshot::GRPC_CODES, snapshot::STATUS_CLASSES};
use buttress_core::{
    Admit, Clock, ConfigError, DegradedBy, Fresh, Gatekeeper, Handle, Histogram, Measure, Mode, ModeCell, Reason,
    Rejection, Series, Striped, TokioClock, Value,
};
use std::{
    array, fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Measures calls: the policy of a [`TelemetryLayer`](super::TelemetryLayer), and its handle. See [the module](super).
///
/// Its modes: [`Mode::Auto`], and [`Mode::Disabled`], in which calls pass and nothing is measured.
pub struct Telemetry {
    shared: Striped<Shared>,
}

/// What the calls of all clones share.
pub(super) struct Shared {
    pub(super) stripes: Box<[Stripe]>,
    config: TelemetryConfig,
    mode: ModeCell,
}

/// What the threads of one stripe count.
#[repr(align(128))]
pub(super) struct Stripe {
    /// To the real end, by [`End`].
    pub(super) ends: [Histogram; End::ALL.len()],
    pub(super) heads: Histogram,
    pub(super) statuses: [AtomicU64; STATUS_CLASSES.len()],
    pub(super) grpc: [AtomicU64; GRPC_CODES.len()],
    pub(super) refused: [AtomicU64; Reason::ALL.len()],
    pub(super) degraded: [AtomicU64; DegradedBy::ALL.len()],
}

impl Stripe {
    fn new() -> Self {
        fn zeros<const N: usize>() -> [AtomicU64; N] {
            array::from_fn(|_| AtomicU64::new(0))
        }
        Self {
            ends: array::from_fn(|_| Histogram::new()),
            heads: Histogram::new(),
            statuses: zeros(),
            grpc: zeros(),
            refused: zeros(),
            degraded: zeros(),
        }
    }
}

impl Telemetry {
    /// Of calls that are no HTTP, without labels.
    pub fn new() -> Self {
        Self::of(TelemetryConfig::new())
    }

    /// Of requests that come in, without a label `http_route`: for a chain around a whole router.
    pub fn server() -> Self {
        Self::of(TelemetryConfig::server())
    }

    /// Of requests that go out, without a label `http_route`.
    pub fn client() -> Self {
        Self::of(TelemetryConfig::client())
    }

    pub(super) fn of(config: TelemetryConfig) -> Self {
        let stripes = match config.stripes {
            0 => Striped::<Shared>::default_stripes(),
            stripes => stripes.next_power_of_two() as usize,
        };
        let counts = (0..stripes).map(|_| Stripe::new()).collect();
        Self { shared: Striped::new(Shared { stripes: counts, config, mode: ModeCell::new(0) }, stripes) }
    }

    /// A call begins; what is returned is told of its phases, as layers do it. For what is no Service.
    ///
    /// ```
    /// use buttress::{Outcome, Telemetry, core::Settle, telemetry::End};
    ///
    /// let telemetry = Telemetry::new();
    /// let call = telemetry.begin();
    /// // The work is done here.
    /// call.settle(Outcome::Success, None);
    /// assert_eq!(telemetry.snapshot().count(End::Success), 1);
    /// ```
    pub fn begin(&self) -> Measured {
        self.begin_at(&TokioClock)
    }

    #[inline]
    pub(super) fn begin_at(&self, clock: &impl Clock) -> Measured {
        match self.shared.mode.is_auto() {
            true => Measured::new(self.shared.lease(), clock.now()),
            false => Measured::not(),
        }
    }

    /// What it was made from.
    pub fn config(&self) -> &TelemetryConfig {
        &self.shared.config
    }

    /// What was counted until now.
    pub fn snapshot(&self) -> TelemetrySnapshot {
        let mut seen = TelemetrySnapshot::new(self.shared.mode.get(), self.shared.leased() as u64);
        for stripe in &self.shared.stripes {
            for (sum, end) in seen.ends.iter_mut().zip(&stripe.ends) {
                end.add_to(sum);
            }
            stripe.heads.add_to(&mut seen.heads);
            let add = |sums: &mut [u64], counts: &[AtomicU64]| {
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count.load(Relaxed));
            };
            add(&mut seen.statuses, &stripe.statuses);
            add(&mut seen.grpc, &stripe.grpc);
            add(&mut seen.refused, &stripe.refused);
            add(&mut seen.degraded, &stripe.degraded);
        }
        seen
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Gatekeeper for Telemetry {
    type Permit = Measured;
    type Turn = ();
}

impl<Req> Admit<Req> for Telemetry {
    #[inline]
    fn admit(&self, _: &mut (), _: &Req) -> Result<Measured, Rejection> {
        Ok(self.begin_at(&TokioClock))
    }
}

impl Fresh for Telemetry {
    fn fresh(&self) -> Self {
        Self::of(self.shared.config.clone())
    }
}

impl Handle for Telemetry {
    fn kind(&self) -> &'static str {
        "telemetry"
    }

    fn visit(&self, show: &mut dyn FnMut(&'static str, Value)) {
        const ENDS: [&str; End::ALL.len()] =
            ["success_total", "failure_total", "overload_total", "ignored_total", "abandoned_total"];
        let seen = self.snapshot();
        show("in_flight", Value::Gauge(seen.in_flight));
        for (name, end) in ENDS.into_iter().zip(End::ALL) {
            show(name, Value::Count(seen.count(end)));
        }
        show("refused_total", Value::Count(seen.refused.iter().sum()));
        show("degraded_total", Value::Count(seen.degraded.iter().sum()));
        let all = seen.all();
        for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
            show(name, Value::Duration(Duration::from_secs_f64(all.quantile(q).unwrap_or_default())));
        }
    }

    fn measure(&self, show: &mut dyn FnMut(Series<'_>)) {
        let seen = self.snapshot();
        let config = self.config();
        let mut each = |family, help, label: Option<(&'static str, &str)>, measure| {
            let route = ("http_route", &*config.route);
            let labels = match (config.route.is_empty(), label) {
                (true, None) => &[][..],
                (true, Some(label)) => &[label],
                (false, None) => &[route],
                (false, Some(label)) => &[route, label],
            };
            show(Series { family, help, labels, measure });
        };
        let (family, help) = match config.side {
            Side::Server => ("http_server_request_duration", "Duration of requests served, to the end of the body."),
            Side::Client => ("http_client_request_duration", "Duration of requests made, to the end of the body."),
            Side::Other => ("buttress_call_duration", "Duration of calls."),
        };
        for end in End::ALL {
            each(family, help, Some(("outcome", end.as_str())), Measure::Durations(seen.duration(end)));
        }
        let help = "Duration of HTTP calls to the response head.";
        each("buttress_telemetry_head_duration", help, None, Measure::Durations(&seen.heads));
        let help = "Calls that a layer further in refused or cut short, by reason.";
        for reason in Reason::ALL {
            let label = Some(("error_type", reason.as_str()));
            each("buttress_telemetry_refusals", help, label, Measure::Count(seen.refused(reason)));
        }
        let help = "Calls that got a degraded answer, by the kind of layer that gave it.";
        for by in DegradedBy::ALL {
            let label = Some(("by", by.as_str()));
            each("buttress_telemetry_degradations", help, label, Measure::Count(seen.degraded(by)));
        }
        let help = "HTTP responses by the class of their status.";
        for (class, count) in STATUS_CLASSES.into_iter().zip(seen.statuses) {
            each("buttress_telemetry_responses", help, Some(("class", class)), Measure::Count(count));
        }
        let help = "gRPC answers by their code.";
        for (code, count) in GRPC_CODES.into_iter().zip(seen.grpc) {
            let label = Some(("rpc_grpc_status_code", code));
            each("buttress_telemetry_grpc_responses", help, label, Measure::Count(count));
        }
    }

    fn mode(&self) -> Mode {
        self.shared.mode.get()
    }

    fn set_mode(&self, mode: Mode) -> Result<(), ConfigError> {
        match mode {
            Mode::Auto | Mode::Disabled => self.shared.mode.set(mode),
            _ => Err(ConfigError::new("mode", mode.as_str(), "auto or disabled: telemetry refuses nothing")),
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("config", self.config()).finish_non_exhaustive()
    }
}
