//! The commands that tell a running gateway what to do, over its admin listener.

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use http::{Method, Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{fmt, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

/// Where the running gateway is.
#[derive(Args)]
pub(crate) struct Target {
    /// The address of its admin listener.
    #[arg(long, default_value = "127.0.0.1:9901", global = true)]
    admin: SocketAddr,
    /// The file that holds the token, where it asks for one.
    #[arg(long, global = true)]
    token_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Order {
    /// Shows what the layers of a running gateway do, as JSON.
    Status {
        #[command(flatten)]
        target: Target,
    },
    /// Tells a running gateway to end in good order, as SIGTERM does.
    Drain {
        #[command(flatten)]
        target: Target,
    },
    /// Opens or closes the breakers of a cluster, whatever they have seen, or leaves it to them again.
    Breaker {
        mode: BreakerMode,
        /// The name of a cluster.
        cluster: String,
        /// Only this endpoint's: `host:port`.
        #[arg(long)]
        endpoint: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Shows how many calls each cluster takes, who waits, and what was shed, as JSON.
    Clusters {
        #[command(flatten)]
        target: Target,
    },
    /// Lets the load shedding of a cluster only count what it would refuse, switches it off, or on again.
    Shed {
        mode: ShedMode,
        /// The name of a cluster.
        cluster: String,
        #[command(flatten)]
        target: Target,
    },
    /// Injects faults into the calls to a cluster: `inject web 'status=503 percent=20' 'latency=200ms..500ms' --for 30s`.
    Inject {
        /// The name of a cluster.
        cluster: String,
        /// What to inject, each with its own `percent` and `for`: `latency=200ms`, `status=503`, `hang`, `cut=1024`, `refuse`,
        /// `reason=connect_refused`.
        #[arg(required_unless_present = "clear", conflicts_with = "clear")]
        faults: Vec<String>,
        /// Only into the calls to this endpoint: `host:port`.
        #[arg(long)]
        endpoint: Option<String>,
        /// For how long, where a fault does not say it itself.
        #[arg(long = "for", conflicts_with = "clear")]
        lasts: Option<String>,
        /// Ends what is injected.
        #[arg(long)]
        clear: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Switches a feature on or off, whatever its conditions say, or leaves it to them again.
    Toggle {
        switch: ToggleSwitch,
        /// The name of a toggle.
        toggle: String,
        #[command(flatten)]
        target: Target,
    },
    /// Holds a level of service, whatever the pressure is, or leaves it to the pressure again; without either, shows it.
    Level {
        /// The name of a level.
        #[arg(conflicts_with = "unpin")]
        pin: Option<String>,
        #[arg(long)]
        unpin: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Sends the calls of a route to this one of its clusters first, or leaves it to the failover again.
    Failover {
        /// The name of a route.
        route: String,
        /// The name of a cluster.
        #[arg(long, required_unless_present = "auto", conflicts_with = "auto")]
        prefer: Option<String>,
        #[arg(long)]
        auto: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Sets the share of the calls that a route's canary gets, or lets it have its share again after it was taken from it.
    Canary {
        /// The name of a route.
        route: String,
        /// In percent of the calls.
        #[arg(long, required_unless_present = "reset", conflicts_with = "reset")]
        weight: Option<f64>,
        #[arg(long)]
        reset: bool,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum BreakerMode {
    /// Refuses every call.
    Open,
    /// Lets every call through.
    Close,
    /// Decides by itself again.
    Auto,
}

impl fmt::Display for BreakerMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::Auto => "auto",
        })
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ShedMode {
    /// Refuses what is too much.
    Auto,
    /// Counts it, and lets it pass.
    Observe,
    /// Lets everything pass, and learns nothing.
    Off,
}

impl fmt::Display for ShedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Observe => "observe",
            Self::Off => "off",
        })
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ToggleSwitch {
    /// Every call passes.
    On,
    /// None does.
    Off,
    /// Its conditions decide again.
    Auto,
}

impl fmt::Display for ToggleSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Auto => "auto",
        })
    }
}

/// Gives an order and shows what came of it.
pub(crate) fn give(order: Order) -> ExitCode {
    match answer(order) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{}", why.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn answer(order: Order) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    let (method, path, target) = match order {
        Order::Status { target } => (Method::GET, "/status".to_owned(), target),
        Order::Drain { target } => (Method::POST, "/drain".to_owned(), target),
        Order::Breaker { mode, cluster, endpoint, target } => {
            query.append_pair("mode", &mode.to_string());
            query.extend_pairs(endpoint.map(|endpoint| ("endpoint", endpoint)));
            (Method::POST, format!("/breaker/{}", segment(&cluster)), target)
        }
        Order::Clusters { target } => (Method::GET, "/clusters".to_owned(), target),
        Order::Shed { mode, cluster, target } => {
            query.append_pair("mode", &mode.to_string());
            (Method::POST, format!("/shed/{}", segment(&cluster)), target)
        }
        Order::Inject { cluster, faults, endpoint, lasts, clear, target } => {
            for mut fault in faults {
                if let Some(lasts) = &lasts
                    && !fault.split_whitespace().any(|part| part.starts_with("for="))
                {
                    fault += &format!(" for={lasts}");
                }
                query.append_pair("fault", &fault);
            }
            query.extend_pairs(endpoint.map(|endpoint| ("endpoint", endpoint)));
            query.extend_pairs(clear.then_some(("clear", "")));
            (Method::POST, format!("/inject/{}", segment(&cluster)), target)
        }
        Order::Toggle { switch, toggle, target } => {
            query.append_pair("switch", &switch.to_string());
            (Method::POST, format!("/toggle/{}", segment(&toggle)), target)
        }
        Order::Level { pin, unpin, target } => {
            let method = if pin.is_some() || unpin { Method::POST } else { Method::GET };
            query.extend_pairs(pin.map(|level| ("pin", level)));
            query.extend_pairs(unpin.then_some(("unpin", "")));
            (method, "/levels".to_owned(), target)
        }
        Order::Failover { route, prefer, auto, target } => {
            query.extend_pairs(prefer.map(|cluster| ("prefer", cluster)));
            query.extend_pairs(auto.then_some(("auto", "")));
            (Method::POST, format!("/failover/{}", segment(&route)), target)
        }
        Order::Canary { route, weight, reset, target } => {
            query.extend_pairs(weight.map(|weight| ("weight", weight.to_string())));
            query.extend_pairs(reset.then_some(("reset", "")));
            (Method::POST, format!("/canary/{}", segment(&route)), target)
        }
    };
    let uri = format!("http://{}{path}?{}", target.admin, query.finish());
    let mut req = Request::builder().method(method).uri(uri);
    if let Some(path) = &target.token_file {
        let token = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        req = req.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let req = req.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = runtime.block_on(async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let call = async {
            let res = client.request(req).await.map_err(|error| unreachable(target.admin, &error))?;
            let status = res.status();
            let body = res.into_body().collect().await.map_err(|error| unreachable(target.admin, &error))?;
            Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        let timed = tokio::time::timeout(Duration::from_secs(10), call).await;
        timed.unwrap_or_else(|_| Err(format!("no answer from the admin listener at {}", target.admin)))
    });
    let (status, text) = answer?;
    if status.is_success() { Ok(text) } else { Err(text) }
}

fn unreachable(admin: SocketAddr, error: &dyn std::error::Error) -> String {
    let cause = std::iter::successors(Some(error), |&error| error.source()).last().unwrap_or(error);
    format!("no gateway answers at {admin} (`--admin`): {cause}")
}

fn segment(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}
