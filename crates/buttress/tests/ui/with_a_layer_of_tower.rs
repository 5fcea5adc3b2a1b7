use buttress::prelude::*;

fn main() {
    let _ = tower::ServiceBuilder::new().opaque().with(tower::layer::util::Identity::new());
}
