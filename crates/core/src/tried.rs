use std::{cell::Cell, fmt, mem};

thread_local! {
    /// The attempt that runs now. One word without a destructor: it is written twice in every call.
    static PRESENT: Cell<Word> = const { Cell::new(Word(0)) };
    /// Where earlier ones went, if its word says so.
    static EARLIER: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

/// `[ scoped 1 | earlier 1 | picked 1 | others 1 | attempt 28 | endpoint 32 ]`
#[derive(Clone, Copy, Default)]
struct Word(u64);

/// It is somebody's attempt.
const SCOPED: u64 = 1 << 63;
/// There were attempts that went somewhere.
const LIST: u64 = 1 << 62;
/// It goes to `endpoint`.
const PICKED: u64 = 1 << 61;
/// Another attempt could go elsewhere.
const OTHERS: u64 = 1 << 60;
const PICK: u64 = PICKED | OTHERS | ENDPOINT;
const ENDPOINT: u64 = u32::MAX as u64;
const ATTEMPT_SHIFT: u32 = 32;
const ATTEMPT: u64 = (1 << 28) - 1;

impl Word {
    #[inline]
    fn is(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    #[inline]
    fn attempt(self) -> u32 {
        (self.0 >> ATTEMPT_SHIFT & ATTEMPT) as u32
    }

    fn picked(self) -> Option<u32> {
        self.is(PICKED).then_some(self.0 as u32)
    }
}

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
#[derive(Default)]
pub struct Tried {
    /// Where earlier attempts went.
    earlier: Vec<u32>,
    /// The present one.
    word: Word,
}

impl Tried {
    /// Of a call that has not been sent yet.
    pub const fn new() -> Self {
        Self { earlier: Vec::new(), word: Word(0) }
    }

    /// Runs a part of the present attempt: a call, or a poll of its future.
    #[inline]
    pub fn scope<T>(&mut self, run: impl FnOnce() -> T) -> T {
        struct Scope<'a> {
            tried: &'a mut Tried,
            outer: Word,
            /// The outer one's list, while this one's is in its place.
            list: Option<Vec<u32>>,
        }
        impl Drop for Scope<'_> {
            #[inline]
            fn drop(&mut self) {
                let own = PRESENT.get();
                let mut outer = self.outer;
                // Whoever makes the attempts that these are part of avoids their endpoints as well.
                if outer.is(SCOPED) && own.is(PICKED) {
                    outer.0 = outer.0 & !PICK | own.0 & PICK;
                }
                PRESENT.set(outer);
                self.tried.word = Word(own.0 & !(SCOPED | LIST));
                if let Some(list) = self.list.take() {
                    self.tried.earlier = EARLIER.replace(list);
                }
            }
        }
        let has_list = !self.earlier.is_empty();
        let list = has_list.then(|| EARLIER.replace(mem::take(&mut self.earlier)));
        let outer = PRESENT.replace(Word(self.word.0 | SCOPED | if has_list { LIST } else { 0 }));
        let _scope = Scope { tried: self, outer, list };
        run()
    }

    /// What the attempt that runs now is part of; `None`: nobody further out sends its request again.
    #[inline]
    pub fn with<T>(use_it: impl FnOnce(Option<&mut Tried>) -> T) -> T {
        struct Back(Tried, u64);
        impl Drop for Back {
            #[inline]
            fn drop(&mut self) {
                if self.1 & LIST != 0 {
                    EARLIER.set(mem::take(&mut self.0.earlier));
                }
                PRESENT.set(Word(self.0.word.0 | self.1));
            }
        }
        let word = PRESENT.get();
        if !word.is(SCOPED) {
            return use_it(None);
        }
        PRESENT.set(Word(0));
        let earlier = if word.is(LIST) { EARLIER.take() } else { Vec::new() };
        let kept = word.0 & (SCOPED | LIST);
        let mut back = Back(Tried { earlier, word: Word(word.0 & !kept) }, kept);
        use_it(Some(&mut back.0))
    }

    /// Which attempt runs now (0 is the first); `None`: nobody further out sends its request again.
    #[inline]
    pub fn present() -> Option<u32> {
        let word = PRESENT.get();
        word.is(SCOPED).then(|| word.attempt())
    }

    /// The present attempt goes to `endpoint`; `others`: there are some that none went to, and the next one could.
    #[inline]
    pub fn pick(&mut self, endpoint: u32, others: bool) {
        let others = if others { OTHERS } else { 0 };
        self.word.0 = self.word.0 & !PICK | PICKED | others | u64::from(endpoint);
    }

    /// Whether the present attempt got as far as an endpoint that none went to before, and the next one may go to yet another.
    pub fn has_picked_another(&self) -> bool {
        self.word.is(OTHERS) && self.word.picked().is_some_and(|picked| !self.contains(picked))
    }

    /// The present attempt is over, and another one begins. For who makes them, outside of the scope.
    pub fn turn(&mut self) {
        if let Some(picked) = self.word.picked()
            && !self.contains(picked)
        {
            self.earlier.push(picked);
        }
        self.word = Word(u64::from(self.attempt() + 1) << ATTEMPT_SHIFT);
    }

    /// How many attempts came before the present one.
    #[inline]
    pub fn attempt(&self) -> u32 {
        self.word.attempt()
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

impl fmt::Debug for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tried")
            .field("endpoints", &self.earlier)
            .field("picked", &self.word.picked())
            .field("attempt", &self.attempt())
            .finish()
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
                assert!(Tried::with(|tried| tried.unwrap().word.picked().is_none()), "its own");
                pick(2);
            });
            assert_eq!(Tried::with(|tried| tried.unwrap().word.picked()), Some(2));
        });
        assert!(Tried::with(|tried| tried.is_none()));
        assert_eq!((outer.word.picked(), inner.word.picked()), (Some(2), Some(2)));
    }

    #[test]
    fn lists_of_nested_calls_are_their_own() {
        let seen = || Tried::with(|tried| tried.map(|tried| (tried.attempt(), tried.endpoints().to_vec())));
        let been = |endpoint| {
            let mut tried = Tried::new();
            tried.pick(endpoint, true);
            tried.turn();
            tried
        };
        let (mut outer, mut fresh, mut other) = (been(1), Tried::new(), been(2));
        outer.scope(|| {
            fresh.scope(|| assert_eq!(seen(), Some((0, vec![]))));
            other.scope(|| assert_eq!(seen(), Some((1, vec![2]))));
            assert_eq!((seen(), Tried::present()), (Some((1, vec![1])), Some(1)));
            Tried::with(|_| assert_eq!((seen(), Tried::present()), (None, None)));
        });
        assert_eq!((outer.endpoints(), other.endpoints(), fresh.endpoints()), (&[1][..], &[2][..], &[][..]));
        assert_eq!((seen(), Tried::present()), (None, None));
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
        assert_eq!(tried.word.picked(), Some(1));
    }
}
