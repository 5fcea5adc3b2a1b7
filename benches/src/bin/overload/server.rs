//! An axum server on loopback, on a runtime of its own: dropping it is an outage.

use crate::{pool::Pool, protection::Protection};
use axum::{Router, routing::get};
use std::{error::Error, io, net::SocketAddr, time::Duration};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

pub struct Server {
    runtime: Option<Runtime>,
    address: SocketAddr,
    pub pool: Pool,
}

/// What a server is made of.
#[derive(Clone, Copy)]
pub struct Site {
    pub workers: usize,
    pub work: Duration,
    /// How long clients wait.
    pub time_out: Duration,
}

impl Server {
    /// Listens on a port that is free.
    pub fn start(site: Site, protection: Protection) -> Result<Self, Box<dyn Error>> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), site, protection)
    }

    fn start_at(address: SocketAddr, site: Site, protection: Protection) -> Result<Self, Box<dyn Error>> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("server").enable_all().build()?;
        let pool = Pool::new(site.workers, site.work);
        let handler = {
            let pool = pool.clone();
            get(move || async move {
                pool.work().await;
                "done"
            })
        };
        let _entered = runtime.enter();
        // With its state now: else axum puts the layers around the handler for each connection anew, and what keeps its permits in
        // the service (tower-resilience's limiter) limits nothing.
        let app = protection.around(Router::new().route("/", handler), site)?.with_state(());
        let listener = runtime.block_on(listen(address))?;
        let address = listener.local_addr()?;
        runtime.spawn(async move { axum::serve(listener, app).await });
        drop(_entered);
        Ok(Self { runtime: Some(runtime), address, pool })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections break, new ones are refused, and what was under way is lost.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Another one where this was.
    pub fn restart(&mut self, site: Site, protection: Protection) -> Result<(), Box<dyn Error>> {
        self.stop();
        *self = Self::start_at(self.address, site, protection)?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The port of a server that stops is free when its runtime's threads have noticed.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    const TRIES: u32 = 200;
    for _ in 1..TRIES {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() != 0 => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            done => return done,
        }
    }
    TcpListener::bind(address).await
}
