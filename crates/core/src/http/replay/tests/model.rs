//! Any body, any cap, any number of attempts that read, come and go in any order, against a naive model.

use super::*;
use proptest::prelude::*;

const CAP_FRAMES: usize = 16;

#[derive(Clone, Debug)]
enum Op {
    /// The sender of the body: a frame of so many bytes, trailers, a failure, the end.
    Send(u8),
    SendTrailers,
    Fail,
    Close,
    /// An attempt beside the others, one in place of them.
    Join,
    Succeed,
    Poll(usize),
    Leave(usize),
    KeepNoMore,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0..30_u8).prop_map(Op::Send),
        1 => Just(Op::SendTrailers),
        1 => Just(Op::Fail),
        1 => Just(Op::Close),
        3 => Just(Op::Join),
        2 => Just(Op::Succeed),
        20 => (0..4_usize).prop_map(Op::Poll),
        2 => (0..4_usize).prop_map(Op::Leave),
        1 => Just(Op::KeepNoMore),
    ];
    proptest::collection::vec(op, 0..150)
}

/// What was sent, in full, and how far it was read.
#[derive(Default)]
struct Model {
    sent: Vec<Got>,
    failed: bool,
    closed: bool,
    /// How many frames anyone has read.
    read: usize,
    /// From which on they are kept for an attempt that begins now; beyond `read`: none is.
    lost: Option<Lost>,
    /// Below this, nothing can be read any more.
    gone: usize,
    keeping: bool,
    /// Whether the body says that it has ended, and whether it has said so, or somebody has found out.
    says_end: bool,
    said_end: bool,
    over: bool,
    readers: Vec<Option<At>>,
}

#[derive(Clone, Copy, Default)]
struct At {
    frame: usize,
    over: bool,
    pending: bool,
    /// Another was made in its place.
    succeeded: bool,
}

fn size(got: &Got) -> usize {
    match got {
        Got::Data(data) => data.len(),
        Got::Trailers(trailers) => trailers.iter().map(|(name, value)| name.len() + value.len()).sum(),
        _ => 0,
    }
}

impl Model {
    fn alone(&self) -> bool {
        !self.keeping && self.current().count() == 1
    }

    fn current(&self) -> impl Iterator<Item = &At> {
        self.readers.iter().flatten().filter(|at| !at.succeeded)
    }

    /// What only one attempt could want is gone when it has it.
    fn trim(&mut self) {
        if self.alone() {
            let passed = self.current().next().unwrap().frame;
            self.gone = self.gone.max(passed);
        }
    }

    fn poll(&mut self, reader: usize, cap: usize) -> Got {
        let at = self.readers[reader].unwrap();
        let got = self.step(at, cap);
        let at = self.readers[reader].as_mut().unwrap();
        match got {
            Got::Pending => at.pending = true,
            Got::Data(_) | Got::Trailers(_) => (at.frame, at.pending) = (at.frame + 1, false),
            Got::Error(_) | Got::End => (at.over, at.pending) = (true, false),
        }
        got
    }

    fn step(&mut self, at: At, cap: usize) -> Got {
        if at.over {
            return Got::End;
        }
        if at.succeeded {
            return if at.frame == self.read && self.over { Got::End } else { Got::Error("succeeded".into()) };
        }
        if self.lost == Some(Lost::Failed) {
            return Got::Error("marked".into());
        }
        if at.frame < self.read {
            if at.frame < self.gone {
                return Got::Error("behind".into());
            }
            return self.sent[at.frame].clone();
        }
        let Some(frame) = self.sent.get(self.read) else {
            return match () {
                () if self.failed => {
                    (self.lost, self.gone) = (Some(Lost::Failed), self.read);
                    Got::Error("marked".into())
                }
                () if self.closed => {
                    self.over = true;
                    Got::End
                }
                () => Got::Pending,
            };
        };
        self.read += 1;
        self.said_end = self.says_end && self.closed && self.read == self.sent.len();
        self.over = self.said_end;
        if self.lost.is_some() || self.alone() {
            self.gone = self.read;
        } else if self.kept() > cap || self.read - self.gone > CAP_FRAMES.max(cap / 64) {
            (self.lost, self.gone) = (Some(Lost::TooLarge), self.read);
        }
        frame.clone()
    }

    fn kept(&self) -> usize {
        self.sent[self.gone..self.read].iter().map(size).sum()
    }

    /// Whether a reader would get something.
    fn could_go_on(&self, at: At) -> bool {
        at.succeeded || at.frame < self.sent.len() || self.failed || self.closed
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_gives_everyone_all_bytes_or_a_clear_error(ops in ops(), cap in 0..300_usize, says_end: bool) {
        let feed = Feed::default();
        let attempts = Attempts::of(&feed, cap);
        feed.with(|fed| fed.says_end = says_end);
        let mut model = Model { keeping: true, says_end, ..Model::default() };
        let mut bodies: Vec<Option<ReplayBody<Fodder>>> = Vec::new();
        let mut tasks = Vec::new();
        let mut number = 0_u8;
        for op in ops {
            match op {
                Op::Send(len) if !(model.closed || model.failed) => {
                    number = number.wrapping_add(1);
                    let data = vec![number; usize::from(len)];
                    model.sent.push(Got::Data(data.clone()));
                    feed.push(Ok(Frame::data(data.into())));
                }
                Op::SendTrailers if !(model.closed || model.failed) => {
                    model.sent.push(Got::Trailers(vec![("grpc-status".into(), "0".into())]));
                    feed.push(Ok(trailers()));
                }
                Op::Fail if !(model.closed || model.failed) => {
                    model.failed = true;
                    feed.push(Err("failed"));
                }
                Op::Close if !(model.closed || model.failed) => {
                    model.closed = true;
                    feed.close();
                }
                Op::Join if model.keeping && model.lost.is_none() => {
                    model.readers.push(Some(At::default()));
                    bodies.push(Some(attempts.join()));
                    tasks.push(Task::new());
                }
                Op::Succeed if model.keeping => {
                    let body = attempts.succeed();
                    prop_assert_eq!(body.is_some(), model.lost.is_none());
                    let Some(body) = body else { continue };
                    model.readers.iter_mut().flatten().for_each(|at| at.succeeded = true);
                    model.readers.push(Some(At::default()));
                    bodies.push(Some(body));
                    tasks.push(Task::new());
                }
                Op::Poll(i) if !bodies.is_empty() => {
                    let i = bodies.len() - 1 - i % bodies.len();
                    let Some(body) = &mut bodies[i] else { continue };
                    tasks[i].0.woken();
                    let got = poll_with(body, &tasks[i].1);
                    let want = model.poll(i, cap);
                    match (&got, &want) {
                        (Got::Error(_), Got::Error(_)) => {}
                        _ => prop_assert_eq!(got, want),
                    }
                }
                Op::Leave(i) if !bodies.is_empty() => {
                    let i = bodies.len() - 1 - i % bodies.len();
                    bodies[i] = None;
                    model.readers[i] = None;
                }
                Op::KeepNoMore => {
                    attempts.0.keep_no_more();
                    model.keeping = false;
                }
                _ => {}
            }
            model.trim();
            prop_assert_eq!(attempts.0.lost(), model.lost);
            prop_assert_eq!(attempts.0.buffered(), model.kept());
            prop_assert!(attempts.0.buffered() <= cap);
            for (i, at) in model.readers.iter().enumerate() {
                let Some(at) = at else { continue };
                if at.pending && model.could_go_on(*at) {
                    prop_assert!(tasks[i].0.0.load(SeqCst) > 0, "reader {} sleeps for ever", i);
                }
                let end = at.over || (at.frame == model.read && model.said_end);
                prop_assert_eq!(bodies[i].as_ref().unwrap().is_end_stream(), end);
            }
        }
        bodies.clear();
        prop_assert_eq!(Arc::strong_count(&attempts.0), 1);
        drop(attempts);
        prop_assert!(feed.with(|fed| fed.gone));
        prop_assert!(tasks.iter().all(|(task, _)| Arc::strong_count(task) == 2));
    }
}
