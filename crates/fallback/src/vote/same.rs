use std::{fmt, marker::PhantomData};

/// Whether two answers are the same one. The values are [`ByAnswer`] (the default) and [`By`].
pub trait Same<A>: Clone {
    /// Whether they are.
    fn same(&self, one: &A, other: &A) -> bool;
}

/// They are equal. Of HTTP: see `WholeResponse`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByAnswer;

impl<A: PartialEq> Same<A> for ByAnswer {
    fn same(&self, one: &A, other: &A) -> bool {
        one == other
    }
}

/// What a closure makes of them is equal. See [`VoteLayer::by`](super::VoteLayer::by).
pub struct By<F, V>(F, PhantomData<fn() -> V>);

impl<F, V> By<F, V> {
    pub(super) fn new(key: F) -> Self {
        Self(key, PhantomData)
    }
}

impl<A, V: PartialEq, F: Fn(&A) -> V + Clone> Same<A> for By<F, V> {
    fn same(&self, one: &A, other: &A) -> bool {
        self.0(one) == self.0(other)
    }
}

impl<F: Clone, V> Clone for By<F, V> {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl<F, V> fmt::Debug for By<F, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("By").finish_non_exhaustive()
    }
}
