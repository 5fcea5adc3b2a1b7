//! What is answered in place of a service: by a [fallback](crate::AnswerLayer), and while a [toggle](crate::SwitchLayer) is off.
//!
//! | a backup | answers with | keeps of the request |
//! |---|---|---|
//! | [`value`] | clones of a value | nothing |
//! | `StaticResponse` (feature `http`) | a file or a text, with status and type | whether it is a HEAD, or gRPC |
//! | [`from_fn`] | what a function makes of request and cause, at once | what its first closure takes |
//! | [`from_async`] | the same, later, within a time-out | what its first closure takes |
//! | [`service`] | the answer of another service, within a time-out | the request that its first closure makes |
//! | [`none`] | nothing | nothing |
//!
//! All are a [`Backup`], and so are types of your own. A request need not be `Clone`, and its body is never kept. A backup that needs
//! the *body* of the request is a failover with that one backup: it keeps bodies up to a limit, to send them again.

#[cfg(feature = "http")]
mod fixed;
mod function;
mod service;

#[cfg(feature = "http")]
pub use fixed::{AnswerFixed, StaticResponse};
pub use function::{AnswerBy, AnswerLater, AnswerLaterFuture, AnswerValue, from_async, from_fn, value};
pub use service::{AnswerByService, AnswerByServiceFuture, DEFAULT_TIMEOUT, service};

use buttress_core::Cause;
use std::{
    future::{Future, Ready, ready},
    pin::Pin,
    task::{Context, Poll},
};

/// What is answered in place of a service. The module [`backup`](crate::backup) has those that are there.
///
/// `Own` is what a layer can answer by itself: `http::Response<Bytes>` over HTTP, the response type of the service elsewhere
/// ([`Call::Answer`](buttress_core::Call::Answer)).
///
/// ```
/// use buttress_core::Cause;
/// use buttress_fallback::{Backup, Instead};
/// use std::future::{Ready, ready};
///
/// /// Says where it looked.
/// #[derive(Clone)]
/// struct Apology;
///
/// impl<Res> Backup<String, Res, String> for Apology {
///     type Kept = usize;
///     type Future = Ready<Option<Instead<Res, String>>>;
///
///     fn keep(&self, req: &String) -> usize {
///         req.len()
///     }
///     fn answer(&self, len: usize, cause: Cause) -> Self::Future {
///         ready(Some(Instead::Own(format!("no answer to {len} bytes: {}", cause.as_str()))))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no backup of a service that answers `{Req}` with `{Res}`",
    note = "over HTTP what a layer answers by itself is an `http::Response<Bytes>`; here it is `{Own}`",
    note = "a layer speaks HTTP after `.protocol(HttpServer::new())`, or in a builder after `.http_server()`"
)]
pub trait Backup<Req, Res, Own>: Clone + Send + Sync + 'static {
    /// What is kept of a request while it is served; `()` where nothing is.
    type Kept;
    /// The answer. `None`: there is none, and what was there goes on.
    type Future: Future<Output = Option<Instead<Res, Own>>>;

    /// What is kept of `req`: asked for every request, before it goes to the service.
    fn keep(&self, req: &Req) -> Self::Kept;

    /// Answers.
    fn answer(&self, kept: Self::Kept, cause: Cause) -> Self::Future;
}

/// An answer in place of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead<Res, Own> {
    /// It was made here.
    Own(Own),
    /// Another service gave it: it is judged as the first one was, and a bad one is no answer.
    Other(Res),
}

/// The backup that is [`none`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoBackup;

/// Answers nothing: while a toggle is off its calls are refused, and a fallback lets everything through.
pub const fn none() -> NoBackup {
    NoBackup
}

impl<Req, Res, Own> Backup<Req, Res, Own> for NoBackup {
    type Kept = ();
    type Future = Ready<Option<Instead<Res, Own>>>;

    #[inline]
    fn keep(&self, _: &Req) {}

    fn answer(&self, (): (), _: Cause) -> Self::Future {
        ready(None)
    }
}

/// A backup that may not be there, as where a config names none.
impl<B, Req, Res, Own> Backup<Req, Res, Own> for Option<B>
where
    B: Backup<Req, Res, Own>,
{
    type Kept = Option<B::Kept>;
    type Future = Perhaps<B::Future>;

    #[inline]
    fn keep(&self, req: &Req) -> Self::Kept {
        self.as_ref().map(|backup| backup.keep(req))
    }

    fn answer(&self, kept: Self::Kept, cause: Cause) -> Self::Future {
        Perhaps { future: self.as_ref().zip(kept).map(|(backup, kept)| backup.answer(kept, cause)) }
    }
}

pin_project_lite::pin_project! {
    /// The future of an `Option` of a [`Backup`].
    #[derive(Debug)]
    pub struct Perhaps<F> {
        #[pin]
        future: Option<F>,
    }
}

impl<F: Future<Output = Option<T>>, T> Future for Perhaps<F> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match self.project().future.as_pin_mut() {
            Some(future) => future.poll(cx),
            None => Poll::Ready(None),
        }
    }
}
