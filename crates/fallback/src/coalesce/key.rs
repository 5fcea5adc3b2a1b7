/// What makes two requests the same. A closure `Fn(&Req) -> Option<K>` is one: `None`, and a request is for itself alone.
pub trait KeyOf<Req, K> {
    /// The key of a request.
    fn key_of(&self, req: &Req) -> Option<K>;
}

impl<Req, K, F: Fn(&Req) -> Option<K>> KeyOf<Req, K> for F {
    fn key_of(&self, req: &Req) -> Option<K> {
        self(req)
    }
}
