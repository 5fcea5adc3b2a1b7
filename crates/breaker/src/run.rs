use buttress_core::{Error, Outcome, Settle};
use std::{
    future::{Future, poll_fn},
    pin::pin,
};

/// Runs a call that was admitted, and settles its permit as `classify` judges.
pub(crate) async fn run<F, T, E>(
    mut permit: impl Settle,
    future: F,
    classify: impl FnOnce(Result<&T, &E>) -> Outcome,
) -> Result<T, Error<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut future = pin!(future);
    let mut pending = false;
    let result = poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() && !pending {
            pending = true;
            permit.pending();
        }
        polled
    })
    .await;
    permit.settle(classify(result.as_ref()), None);
    result.map_err(Error::Inner)
}

/// `Ok` is a success, `Err` a failure.
pub(crate) fn by_result<T, E>(result: Result<&T, &E>) -> Outcome {
    match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure,
    }
}
