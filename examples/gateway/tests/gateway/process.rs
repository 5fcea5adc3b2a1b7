//! The binary under test.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// `GATEWAY` names another build of it: an optimised one, for figures.
pub(crate) fn binary() -> Command {
    Command::new(std::env::var("GATEWAY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_buttress-gateway").to_owned()))
}

/// Writes a config that no other test writes.
pub(crate) fn config_file(text: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("gateway-{}-{}.toml", std::process::id(), COUNT.fetch_add(1, Relaxed));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// `buttress-gateway check` of a config.
pub(crate) fn check(text: &str) -> Output {
    let path = config_file(text);
    let output = binary().args(["check", "-c"]).arg(&path).output().unwrap();
    std::fs::remove_file(path).unwrap();
    output
}

/// Ports of its own.
pub(crate) const LISTEN: &str =
    "name = \"buttress\"\n[listener.t]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n";

/// A running gateway; killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    path: PathBuf,
}

impl Gateway {
    /// Starts it on ports of its own; `limits` holds lines of that table, `rest` the other tables.
    pub(crate) fn start_with(limits: &str, rest: &str) -> Self {
        Self::start(&format!("{LISTEN}[limits]\n{limits}\n{rest}"))
    }

    /// The same with further lines of the table `admin`.
    pub(crate) fn start_with_admin(admin: &str, rest: &str) -> Self {
        Self::start(&format!("{LISTEN}{admin}\n{rest}"))
    }

    /// Starts it with this config.
    pub(crate) fn start(text: &str) -> Self {
        Self::start_by(binary(), text)
    }

    /// Starts it by a command that goes on as the gateway.
    pub(crate) fn start_by(mut command: Command, text: &str) -> Self {
        let path = config_file(text);
        let mut child =
            command.args(["run", "-c"]).arg(&path).env("RUST_LOG", "off").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = || {
            let line = lines.next().expect("the gateway says where it listens").unwrap();
            line.rsplit("://").next().unwrap().parse().unwrap()
        };
        let (address, admin) = (address(), address());
        Self { child, address, admin, path }
    }

    /// One upstream behind `/`; the lines go to its table.
    pub(crate) fn before(upstream: SocketAddr, upstream_lines: &str) -> Self {
        Self::start_with("", &one(upstream, upstream_lines, ""))
    }

    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How many bytes of memory it has.
    pub(crate) fn memory(&self) -> usize {
        let pages = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// How many files it may have open.
    pub(crate) fn open_files(&self) -> String {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its end, waited for.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        buttress_sim::eventually("the gateway has ended", || self.ended().is_some()).await;
        self.ended().unwrap()
    }

    /// `/status`, read.
    pub(crate) async fn status(&self) -> serde_json::Value {
        let res = get(self.admin, "/status").await;
        serde_json::from_slice(res.body()).unwrap()
    }

    /// What a layer shows, once it is `value`.
    pub(crate) async fn shows(&self, layer: &str, field: &str, value: impl Into<serde_json::Value>) {
        let value = value.into();
        let seen = async {
            while self.status().await["layers"][layer][field] != value {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
        assert!(seen.is_ok(), "{layer} {field} is not {value}: {:#}", self.status().await["layers"][layer]);
    }
}

/// The tables of one upstream behind `/`, with further lines in each.
pub(crate) fn one(upstream: SocketAddr, upstream_lines: &str, route_lines: &str) -> String {
    format!(
        "[cluster.u]\nendpoints = \"{upstream}\"\n{upstream_lines}\n\
         [route.r]\nprefix = \"/\"\ncluster = \"u\"\n{route_lines}\n"
    )
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A request by a client of its own, answered in full.
pub(crate) async fn call(req: Request<Full<Bytes>>, http2: bool) -> Response<Bytes> {
    let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
    let (head, body) = client.request(req).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Response<Bytes> {
    call(Request::get(format!("http://{address}{path}")).body(Full::default()).unwrap(), false).await
}

/// A header as text; empty where there is none.
pub(crate) fn header<'a, B>(res: &'a Response<B>, name: &str) -> &'a str {
    res.headers().get(name).map_or("", |value| value.to_str().unwrap())
}
