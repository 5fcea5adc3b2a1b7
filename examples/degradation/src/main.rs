//! A shop that stays open while what it depends on fails: its catalogue is served from the last good answers, and
//! recommendations are switched off when they fail, by an operator, or when too much else fails.
//!
//! `cargo run -p buttress-example-degradation` breaks one thing after the other and shows what a customer gets.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use buttress::{
    StaticResponse, ToggleLayer,
    fallback::{Back, Switch},
    http::X_DEGRADED,
    prelude::*,
};
use std::{
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tower::{ServiceBuilder, ServiceExt as _};

/// What fails.
#[derive(Clone, Default)]
struct World {
    catalogue: Arc<AtomicBool>,
    recommender: Arc<AtomicBool>,
}

fn answer(fails: &AtomicBool, text: &'static str) -> Result<&'static str, StatusCode> {
    if fails.load(Relaxed) { Err(StatusCode::INTERNAL_SERVER_ERROR) } else { Ok(text) }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn StdError>> {
    let world = World::default();

    // How much of the service there is: a circuit that is open is all the pressure there can be.
    let breaker = BreakerConfig::default().consecutive(3).open_for(Duration::from_millis(200)).build()?;
    let levels = LevelsConfig::new("full")
        .level("no recommendations", 0.5)
        .worse_after(Duration::ZERO)
        .better_after(Duration::from_millis(50))
        .every(Duration::from_millis(1))
        .build()?;
    levels.watch(breaker.signal());

    // Off after three failures of four, or from that level on; single probes find out when it is well again.
    let recommendations = ToggleConfig::new("recommendations")
        .failure_rate(0.75)
        .min_calls(4)
        .back(Back::Probe { after: Duration::from_millis(100), successes: 1 })
        .level(&levels, "no recommendations")?
        .build()?;

    let catalogue = ServiceBuilder::new()
        .http_server()
        .fallback(StaticResponse::new(503, "text/plain", "the shop opens again soon")?)
        .stale(StaleConfig::default().max(Duration::from_secs(600)).build()?)
        .breaker(breaker);
    let none_today = StaticResponse::new(200, "application/json", "[]")?;
    let recommend = ServiceBuilder::new().http_server().with(ToggleLayer::new(recommendations.clone(), none_today));
    let app = Router::new()
        .route("/catalogue", get(async |State(world): State<World>| answer(&world.catalogue, "shoes, hats")))
        .route("/orders", get(async |State(world): State<World>| answer(&world.catalogue, "your orders")))
        .layer(catalogue)
        .merge(
            Router::new()
                .route("/recommendations", get(async |State(world): State<World>| answer(&world.recommender, "[hat]")))
                .layer(recommend),
        )
        .with_state(world.clone());
    let show = async |when: &str, paths: &[&str]| {
        for path in paths {
            println!("{when:<34} {path:<17} {}", ask(&app, path).await?);
        }
        Ok::<_, Box<dyn StdError>>(())
    };

    show("all is well", &["/catalogue", "/recommendations"]).await?;
    world.recommender.store(true, Relaxed);
    show("the recommender fails", &["/recommendations"; 4]).await?;
    world.recommender.store(false, Relaxed);
    tokio::time::sleep(Duration::from_millis(150)).await;
    show("it works again: a probe", &["/recommendations"; 2]).await?;
    recommendations.set(Switch::Off);
    show("an operator switches it off", &["/recommendations"]).await?;
    recommendations.set(Switch::Auto);

    world.catalogue.store(true, Relaxed);
    show("the database fails", &["/catalogue", "/orders", "/orders"]).await?;
    tokio::time::sleep(Duration::from_millis(5)).await;
    show("its circuit is open", &["/catalogue", "/orders", "/recommendations"]).await?;
    println!("the level is {:?}", levels.current_name());
    world.catalogue.store(false, Relaxed);
    tokio::time::sleep(Duration::from_millis(250)).await;
    show("it works again", &["/catalogue", "/catalogue", "/catalogue"]).await?;
    tokio::time::sleep(Duration::from_millis(60)).await;
    levels.current();
    tokio::time::sleep(Duration::from_millis(60)).await;
    show("and so does all the rest", &["/recommendations"]).await?;
    println!("the level is {:?}", levels.current_name());
    Ok(())
}

/// The status, the body, and whether it is what was asked for.
async fn ask(app: &Router, path: &str) -> Result<String, Box<dyn StdError>> {
    let res = app.clone().oneshot(http::Request::get(path).body(axum::body::Body::empty())?).await?;
    let (head, body) = res.into_parts();
    let body = axum::body::to_bytes(body, 1024).await?;
    let degraded = head.headers.get(X_DEGRADED).map_or("", |mark| mark.to_str().unwrap_or_default());
    Ok(format!("{} {:<26} {degraded}", head.status.as_u16(), String::from_utf8_lossy(&body)))
}
