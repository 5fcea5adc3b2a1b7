use std::cell::Cell;

thread_local!(static SCOPE: Cell<Option<Tried>> = const { Cell::new(None) });

/// Where the attempts of one call went, and how many there were: what a layer that makes several (retry, hedge) and a balancer
/// further in know of each other.
///
/// The layer owns it and runs each attempt in its [scope](Self::scope); balancers further in find it by [`with`](Self::with). So it reaches
/// them whatever the request is made of, and costs nothing until an attempt has failed. An attempt that goes on in a task of its own is out
/// of sight.
///
/// ```
/// use buttress_core::Tried;
///
/// let mut tried = Tried::new();
/// tried.scope(|| Tried::with(|tried| tried.unwrap().pick(7, true)));
/// tried.turn();
/// tried.scope(|| {
///     Tried::with(|tried| {
///         let tried = tried.unwrap();
///         assert!(tried.contains(7) && tried.attempt() == 1);
///     })
/// });
/// assert!(Tried::with(|tried| tried.is_none()));
/// ```
#[derive(Debug, Default)]
pub struct Tried {
    /// Where earlier attempts went.
    earlier: Vec<u32>,
    /// Where the present one did.
    picked: Option<u32>,
    /// Another attempt could go elsewhere.
    others: bool,
    attempt: u32,
}

impl Tried {
    /// Of a call that has not been sent yet.
    pub const fn new() -> Self {
        Self { earlier: Vec::new(), picked: None, others: false, attempt: 0 }
    }

    /// Runs a part of the present attempt: a call, or a poll of its future.
    #[inline]
    pub fn scope<T>(&mut self, run: impl FnOnce() -> T) -> T {
        struct Scope<'a> {
            tried: &'a mut Tried,
            outer: Option<Tried>,
        }
        impl Drop for Scope<'_> {
            #[inline]
            fn drop(&mut self) {
                let own = SCOPE.replace(None).unwrap_or_default();
                if let Some(mut outer) = self.outer.take() {
                    // Whoever makes the attempts that these are part of avoids their endpoints as well.
                    if own.picked.is_some() {
                        (outer.picked, outer.others) = (own.picked, own.others);
                    }
                    SCOPE.set(Some(outer));
                }
                *self.tried = own;
            }
        }
        let outer = SCOPE.replace(Some(std::mem::take(self)));
        let _scope = Scope { tried: self, outer };
        run()
    }

    /// What the attempt that runs now is part of; `None`: nobody further out sends its request again.
    #[inline]
    pub fn with<T>(use_it: impl FnOnce(Option<&mut Tried>) -> T) -> T {
        struct Back(Option<Tried>);
        impl Drop for Back {
            #[inline]
            fn drop(&mut self) {
                SCOPE.set(self.0.take());
            }
        }
        let mut tried = Back(SCOPE.take());
        use_it(tried.0.as_mut())
    }

    /// The present attempt goes to `endpoint`; `others`: there are some that none went to, and the next one could.
    #[inline]
    pub fn pick(&mut self, endpoint: u32, others: bool) {
        (self.picked, self.others) = (Some(endpoint), others);
    }

    /// Whether the present attempt got as far as an endpoint that none went to before, and the next one may go to yet another.
    pub fn has_picked_another(&self) -> bool {
        self.others && self.picked.is_some_and(|picked| !self.contains(picked))
    }

    /// The present attempt is over, and another one begins.
    pub fn turn(&mut self) {
        self.attempt += 1;
        let picked = self.picked.take();
        self.others = false;
        self.earlier.extend(picked.filter(|picked| !self.earlier.contains(picked)));
    }

    /// How many attempts came before the present one.
    #[inline]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Where earlier attempts went, each once.
    pub fn endpoints(&self) -> &[u32] {
        &self.earlier
    }

    /// Whether an earlier attempt went to `endpoint`.
    #[inline]
    pub fn contains(&self, endpoint: u32) -> bool {
        self.earlier.contains(&endpoint)
    }
}

#[cfg(all(test, not(buttress_loom)))]
mod tests {
    use super::*;

    fn pick(endpoint: u32) {
        Tried::with(|tried| tried.expect("a scope").pick(endpoint, true));
    }

    #[test]
    fn an_attempt_avoids_where_earlier_ones_went_and_not_where_it_goes_itself() {
        let mut tried = Tried::new();
        for (attempt, endpoint) in [3, 4, 3].into_iter().enumerate() {
            tried.scope(|| pick(endpoint));
            assert_eq!((tried.attempt() as usize, tried.has_picked_another()), (attempt, attempt < 2));
            tried.turn();
        }
        assert!(tried.contains(3) && tried.contains(4) && !tried.contains(5) && tried.earlier.len() == 2);
        assert!(!tried.has_picked_another(), "the next one has not begun");
        tried.pick(6, false);
        assert!(!tried.has_picked_another(), "the next one would go there again");
    }

    #[test]
    fn scopes_nest_and_what_went_on_inside_is_known_outside() {
        let (mut outer, mut inner) = (Tried::new(), Tried::new());
        outer.scope(|| {
            pick(1);
            inner.scope(|| {
                assert!(Tried::with(|tried| tried.unwrap().picked.is_none()), "its own");
                pick(2);
            });
            assert_eq!(Tried::with(|tried| tried.unwrap().picked), Some(2));
        });
        assert!(Tried::with(|tried| tried.is_none()));
        assert_eq!((outer.picked, inner.picked), (Some(2), Some(2)));
    }

    #[test]
    fn a_panic_leaves_no_scope_behind_and_loses_nothing() {
        let mut tried = Tried::new();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tried.scope(|| {
                pick(1);
                Tried::with(|_| panic!("in a balancer"))
            })
        }));
        assert!(caught.is_err() && Tried::with(|tried| tried.is_none()));
        assert_eq!(tried.picked, Some(1));
    }
}
