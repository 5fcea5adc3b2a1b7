//! The gateway's config.

use super::script::{CAST, REST};
use std::{fmt::Write as _, net::SocketAddr, time::Duration};

/// The clusters of the cast. They have routes, and so has [`OVERLOADED`].
pub(crate) const CLUSTERS: [&str; 3] = ["a", "b", "c"];

/// The one that more comes to than it can do.
pub(crate) const OVERLOADED: &str = "d";

/// Reports that are made at once.
pub(crate) const LIMIT: u32 = 8;

/// The config of the demo's gateway: what an operator would write who knows that clients wait two seconds. What must fit the script
/// scales with its length. `addresses` are those of the cast, in its order.
pub(crate) fn config(
    addresses: &[SocketAddr],
    canary: SocketAddr,
    few: SocketAddr,
    length: Duration,
    protection: bool,
) -> String {
    let mut text = "[listener.demo]\naddress = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n".to_owned();
    for cluster in CLUSTERS {
        let endpoints = CAST.iter().zip(addresses).filter(|(role, _)| role.cluster == cluster);
        let endpoints: Vec<_> = endpoints.map(|(_, address)| format!("\"{address}\"")).collect();
        let endpoints = endpoints.join(", ");
        let _ = write!(text, "\n[route.{cluster}]\nprefix = \"/{cluster}\"\ncluster = \"{cluster}\"\n");
        text += if protection { ROUTE } else { "deadline = false\nbulkhead = false\nretry = false\n" };
        if protection && cluster == "a" {
            // A new version may fail in ways of its own.
            text += "retry.statuses = [500, 502, 503, 504]\n";
            text += "canary = { cluster = \"a-next\", weight = 10.0, min_calls = 50 }\n";
        }
        if protection && cluster == "c" {
            text += "retry.budget = { capacity = 3 }\n\
                     fallback.stale = { max = \"1h\" }\n\
                     fallback.static = { status = 503, body = \"not now\" }\n";
        }
        let _ = write!(text, "\n[cluster.{cluster}]\nendpoints = [{endpoints}]\n");
        if protection {
            // What an endpoint was is forgotten as fast as it changes here.
            let decay = length.mul_f64(REST / 2.0).as_millis().clamp(100, 10_000);
            let _ = writeln!(text, "balance = {{ decay = \"{decay}ms\", penalty = \"500ms\" }}");
        }
        text += &self::cluster(cluster, length, protection);
    }
    // Critical, unless a caller says less of itself. Its limit finds itself.
    let _ = write!(
        text,
        "\n[route.{OVERLOADED}]\nprefix = \"/{OVERLOADED}\"\ncluster = \"{OVERLOADED}\"\npriority = \"critical\"\n"
    );
    text += if protection { ROUTE } else { "deadline = false\nbulkhead = false\nretry = false\n" };
    let _ = write!(text, "\n[cluster.{OVERLOADED}]\nendpoints = \"{few}\"\n");
    text += if protection { FEW } else { NOTHING };
    if protection {
        let _ = write!(
            text,
            "\n[route.reports]\nprefix = \"/b/report\"\ncluster = \"b\"\n{ROUTE}bulkhead = {{ limit = {LIMIT} }}\n"
        );
        // Extras that nobody misses are given up where there is little left of the service: `c` is out.
        let _ = write!(
            text,
            "\n[route.extras]\nprefix = \"{EXTRAS}\"\ncluster = \"a\"\ntoggle = \"extras\"\n{ROUTE}\
             fallback.static = {{ status = 200, body = \"no extras now\" }}\n\
             \n[toggle.extras]\nlevel = \"{REDUCED}\"\n\
             \n[levels]\norder = [\"{FULL}\", \"{REDUCED}\"]\nat = [0.9]\nclusters = \"c\"\n\
             worse_after = \"{worse}ms\"\nbetter_after = \"{better}ms\"\n",
            worse = length.mul_f64(0.005).as_millis().clamp(20, 1000),
            better = length.mul_f64(0.02).as_millis().clamp(80, 5000),
        );
        let _ = write!(text, "\n[cluster.a-next]\nendpoints = \"{canary}\"\n");
        text += &self::cluster("a-next", length, protection);
    }
    text
}

/// What is given up first.
pub(crate) const EXTRAS: &str = "/a/extras";

/// How much there is of the service.
const FULL: &str = "full";
const REDUCED: &str = "no extras";

/// No layer of a cluster does anything.
const NOTHING: &str = "deadline = false\nbreaker = false\nbulkhead = false\nshed = false\ngate = false\n";

/// Few at once may be all that it can do, and what matters most may wait for half of its clients' patience.
const FEW: &str = "shed = { limit = { adaptive = { min = 1 } }, queue = { critical_wait = \"1s\" } }\n";

const ROUTE: &str = "deadline = { total = \"1900ms\" }\n";

fn cluster(name: &str, length: Duration, protection: bool) -> String {
    if !protection {
        return NOTHING.to_owned();
    }
    let open_for = length.mul_f64(REST / 5.0).as_millis().clamp(50, 5000);
    let max_open = open_for * 4;
    let tick = (open_for / 2).clamp(50, 1000);
    format!(
        "deadline = {{ per_try = \"500ms\" }}\n\
         [cluster.{name}.breaker]\n\
         consecutive = 5\n\
         probe_window = 3\n\
         overload_as_failure = true\n\
         ramp = {{ share = 0.3, calls = 4, tick = \"{tick}ms\" }}\n\
         open_for = \"{open_for}ms\"\n\
         max_open = \"{max_open}ms\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, proxy::Gateway};

    #[test]
    fn the_gateway_takes_it_with_protection_and_without_at_any_length() {
        let addresses: Vec<SocketAddr> = (1..9).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        for (length, protection) in [(5, true), (20, true), (3600, true), (20, false)] {
            let text = config(&addresses, addresses[0], addresses[1], Duration::from_secs(length), protection);
            let config = Config::parse(&text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
            assert!(Gateway::build(&config).is_ok(), "{text}");
        }
    }
}
