//! What a log says of a call that was given up.

mod common;

use common::*;
use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Notes events as lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "buttress::retry" {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn every_decision_is_told_with_its_reason() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let rig = Rig::new([status(503), status(502)]);
    call(config().max_attempts(2).name("users"), &rig, get()).await.0.unwrap();
    let told = lines.0.lock().unwrap().clone();
    assert_eq!(
        told,
        [
            r#"DEBUG message=retrying retry="users" cause="status" attempts=1 after=100ms"#,
            r#"DEBUG message=gave up retry="users" why="attempts" attempts=2"#,
        ]
    );
}
