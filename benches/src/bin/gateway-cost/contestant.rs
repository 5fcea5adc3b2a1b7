//! Who is measured, and how each of them is told to be a proxy.

use crate::PROXY_CORE;
use std::{
    env,
    error::Error,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub enum Contestant {
    Hyper,
    Buttress(PathBuf),
    Nginx,
    Haproxy,
}

impl Contestant {
    /// Those that are there; who is not is said on stderr.
    pub fn all(only: &[String], gateway: Option<PathBuf>) -> Result<Vec<Self>, Box<dyn Error>> {
        let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
        let mut all = vec![Self::Hyper];
        if wanted("buttress") {
            all.push(Self::Buttress(gateway.map_or_else(build_gateway, Ok)?));
        }
        for peer in [Self::Nginx, Self::Haproxy] {
            let name = peer.name();
            if !wanted(name) {
                continue;
            }
            if Command::new(name).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
                all.push(peer);
            } else {
                eprintln!("{name}: skipped, as it is not installed (Debian: apt-get install nginx-light haproxy)");
            }
        }
        Ok(all)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Hyper => "hyper",
            Self::Buttress(_) => "buttress",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Starts it on the core of contestants, with its files in `folder`. Its process is the one that does the work.
    pub fn start(&self, folder: &Path, ports: &Ports<'_>) -> io::Result<Child> {
        let mut command = Command::new("taskset");
        command.args(["-c", PROXY_CORE]);
        let config = |text: String| {
            let path = folder.join("config");
            fs::write(&path, text).map(|()| path)
        };
        match self {
            Self::Hyper => {
                command.arg(env::current_exe()?).arg("--bare").arg(ports.listen.to_string());
                command.args(ports.upstreams.iter().map(SocketAddr::to_string))
            }
            Self::Buttress(binary) => command.arg(binary).args(["run", "-c"]).arg(config(gateway_config(ports))?),
            Self::Nginx => {
                command.args(["nginx", "-e", "stderr", "-p"]).arg(folder).arg("-c").arg(config(nginx(ports))?)
            }
            Self::Haproxy => command.args(["haproxy", "-db", "-f"]).arg(config(haproxy(ports))?),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).env("RUST_LOG", "warn").spawn()
    }
}

/// Where a contestant listens, and whom it asks.
pub struct Ports<'a> {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub upstreams: &'a [SocketAddr],
}

fn build_gateway() -> Result<PathBuf, Box<dyn Error>> {
    // As this one was built: beside it.
    let built = Command::new(env!("CARGO")).args(["build", "--release", "-p", "buttress-gateway"]).status()?;
    if !built.success() {
        return Err("the gateway does not build".into());
    }
    let binary = env::current_exe()?.with_file_name("buttress-gateway");
    if binary.exists() { Ok(binary) } else { Err(format!("no {}: use --gateway", binary.display()).into()) }
}

/// Every layer with its defaults.
fn gateway_config(Ports { listen, admin, upstreams }: &Ports<'_>) -> String {
    let addresses: Vec<_> = upstreams.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "[listener.public]\naddress = \"{listen}\"\n[admin]\naddress = \"{admin}\"\n\
         [cluster.shop]\nendpoints = [{}]\n[route.shop]\nprefix = \"/\"\ncluster = \"shop\"\n",
        addresses.join(", ")
    )
}

fn nginx(Ports { listen, upstreams, .. }: &Ports<'_>) -> String {
    let servers: String = upstreams.iter().map(|address| format!("server {address};")).collect();
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
           access_log off; keepalive_requests 1000000000;\n\
           client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;\n\
           upstream shop {{ {servers} keepalive 128; keepalive_requests 1000000000; }}\n\
           server {{\n\
             listen {listen};\n\
             location / {{ proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
               proxy_set_header Host $host; }}\n\
           }}\n\
         }}\n"
    )
}

fn haproxy(Ports { listen, upstreams, .. }: &Ports<'_>) -> String {
    let servers: String =
        upstreams.iter().enumerate().map(|(index, address)| format!("  server s{index} {address}\n")).collect();
    format!(
        "global\n  nbthread 1\n  maxconn 1024\n\
         defaults\n  mode http\n  http-reuse always\n  option forwardfor\n\
         \x20 timeout connect 1s\n  timeout client 30s\n  timeout server 30s\n\
         frontend clients\n  bind {listen}\n  default_backend shop\n\
         backend shop\n  balance roundrobin\n{servers}"
    )
}
