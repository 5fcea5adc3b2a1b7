//! From a config to a process that serves, and ends in good order.

use crate::{
    admin::Admin,
    config::{Config, Loaded, LogFormat, Problems},
    proxy::Gateway,
    server::{self, Listening},
    tls,
};
use std::{io::IsTerminal, path::Path, process::ExitCode, sync::Arc};
use tokio::{
    net::TcpListener,
    signal::unix::{self, SignalKind},
    sync::{Notify, watch},
};

/// Serves as the config says, until a signal or an order to drain.
pub(crate) fn run(path: &Path) -> Result<ExitCode, Problems> {
    // The config is judged before anything starts.
    let Loaded { config, warnings, .. } = Config::read(path)?;
    log(config.log.format);
    for warning in warnings.iter() {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Problems::one(path, error))?;
    let ended = runtime.block_on(async {
        let gateway = Gateway::build(&config).map_err(|error| Problems::one(path, error))?;
        serve(config, gateway).await.map_err(|error| Problems::one(path, error))
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    ended
}

/// Events go to standard error; `RUST_LOG` says which.
fn log(format: LogFormat) {
    let events = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into())
                .from_env_lossy(),
        );
    match format {
        LogFormat::Text => events.init(),
        LogFormat::Json => events.json().flatten_event(true).init(),
    }
}

/// Runs until a signal, then drains until it is done or a second signal comes. A failure when calls had to be aborted.
async fn serve(config: Config, gateway: Gateway) -> std::io::Result<ExitCode> {
    let bind = async |field: &str, address| {
        TcpListener::bind(address)
            .await
            .map_err(|e| std::io::Error::new(e.kind(), format!("cannot listen on {address} (`{field}`): {e}")))
    };
    let mut listeners = Vec::new();
    for (name, listener) in &config.listeners {
        let tls = listener.tls.as_ref().map(tls::acceptor).transpose().map_err(std::io::Error::other)?;
        let listening = Listening { listener: bind(&format!("listener.{name}.address"), listener.address).await?, tls };
        let scheme = if listening.tls.is_some() { "https" } else { "http" };
        println!("listening on {scheme}://{}", listening.listener.local_addr()?);
        listeners.push(listening);
    }
    let admin = bind("admin.address", config.admin.address).await?;
    let token = config.admin.token()?;
    let mut signals = Signals::new()?;
    println!("admin on http://{}", admin.local_addr()?);

    let gateway = Arc::new(gateway);
    let (phase, phases) = watch::channel(server::Phase::Running);
    let ordered = Arc::new(Notify::new());
    tokio::spawn(Admin::new(gateway.clone(), phases.clone(), ordered.clone()).serve(admin, token));
    let drain = config.drain.min;
    let ordered_to_stop = async {
        tokio::select! {
            () = signals.next() => {}
            () = ordered.notified() => {}
        }
        tracing::info!("draining; a second signal stops at once");
        phase.send_replace(server::Phase::Draining);
        let drained = async {
            tokio::time::sleep(drain).await;
            phase.send_replace(server::Phase::Stopping);
            std::future::pending().await
        };
        tokio::select! {
            () = signals.next() => {}
            () = drained => {}
        }
    };
    let aborted = tokio::select! {
        aborted = server::serve(listeners, gateway, &config, phases) => aborted,
        () = ordered_to_stop => {
            tracing::warn!("stopped by a second signal; what was in flight is aborted");
            return Ok(ExitCode::FAILURE);
        }
    };
    if aborted > 0 {
        tracing::warn!(connections = aborted, "aborted what did not end in time");
        return Ok(ExitCode::FAILURE);
    }
    tracing::info!("drained");
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM and SIGINT, listened for from the beginning.
struct Signals {
    term: unix::Signal,
    int: unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: unix::signal(SignalKind::terminate())?, int: unix::signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
