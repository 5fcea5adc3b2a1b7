//! One turn of one contestant.

use crate::{
    contestant::{Contestant, Ports},
    load::Clients,
};
use std::{
    env,
    error::Error,
    fs, io,
    net::{SocketAddr, TcpListener},
    process::Child,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

const WARM_UP: Duration = Duration::from_secs(1);
const START_WITHIN: Duration = Duration::from_secs(10);

/// What a turn came to.
#[derive(Clone, Copy)]
pub struct Measured {
    pub rps: f64,
    pub cpu_us_per_request: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub rss_mb: f64,
}

/// Starts a contestant, warms it up, and measures it for `length`.
pub async fn take(
    contestant: &Contestant,
    upstreams: &[SocketAddr],
    length: Duration,
) -> Result<Measured, Box<dyn Error>> {
    let in_turn = |error: io::Error| format!("{}: {error}", contestant.name());
    let folder = env::temp_dir().join(format!("gateway-cost-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let ports = Ports { listen: free_port()?, admin: free_port()?, upstreams };
    let process = Process(contestant.start(&folder, &ports).map_err(in_turn)?);
    until_it_listens(ports.listen).await.map_err(in_turn)?;
    let mut clients = Clients::connect(ports.listen).await.map_err(in_turn)?;
    clients.run(WARM_UP).await.map_err(in_turn)?;
    let (began, cpu) = (Instant::now(), process.cpu_us()?);
    let mut took = clients.run(length).await.map_err(in_turn)?;
    let (length, cpu) = (began.elapsed(), process.cpu_us()? - cpu);
    let rss_mb = process.rss_mb()?;
    drop(process);
    fs::remove_dir_all(&folder)?;
    took.sort_unstable();
    let requests = took.len() as f64;
    let quantile = |share: f64| took[((requests * share) as usize).min(took.len() - 1)].as_secs_f64() * 1e6;
    Ok(Measured {
        rps: requests / length.as_secs_f64(),
        cpu_us_per_request: cpu / requests,
        p50_us: quantile(0.50),
        p99_us: quantile(0.99),
        rss_mb,
    })
}

fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

async fn until_it_listens(address: SocketAddr) -> io::Result<()> {
    let end = Instant::now() + START_WITHIN;
    loop {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A contestant's process, until it is dropped.
struct Process(Child);

impl Process {
    /// The CPU time of all its threads.
    fn cpu_us(&self) -> io::Result<f64> {
        /// The kernel's unit in `stat`: a hundredth of a second, on every Linux (`USER_HZ`).
        const TICK_US: f64 = 10_000.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name, in brackets, may have blanks in it. Behind it: state is field 3, utime and stime are 14 and 15.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
        match ticks[..] {
            [user, system] => Ok((user + system) * TICK_US),
            _ => Err(io::Error::other("no CPU time in /proc/PID/stat")),
        }
    }

    fn rss_mb(&self) -> io::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0).ok_or_else(|| io::Error::other("no VmRSS in /proc/PID/status"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
