/// What a builder's method takes for a policy `P`: the policy, or what always makes one (a limit, a total time).
///
/// A config is not among them: it may be wrong, and the method could not say so. `config.build()?` is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `{P}`",
    label = "this method takes the built policy",
    note = "a config must be checked first: call `.build()?` on it",
    note = "a bulkhead can be a limit (`u32`), a deadline a total (`Duration`)"
)]
pub trait IntoPolicy<P> {
    /// The policy.
    fn into_policy(self) -> P;
}

impl<P> IntoPolicy<P> for P {
    fn into_policy(self) -> P {
        self
    }
}

#[cfg(feature = "bulkhead")]
impl IntoPolicy<crate::Bulkhead> for u32 {
    fn into_policy(self) -> crate::Bulkhead {
        self.into()
    }
}

#[cfg(feature = "deadline")]
impl IntoPolicy<crate::Deadlines> for std::time::Duration {
    fn into_policy(self) -> crate::Deadlines {
        self.into()
    }
}
