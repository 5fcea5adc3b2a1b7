//! Standard output: a screen that is redrawn on a terminal, else a line every second.

use super::{
    Settings,
    frame::Frame,
    line::{Line, Look},
    overload::LONG,
    setup::LIMIT,
    traffic::PATIENCE,
    verdict,
};
use std::{
    cell::{Cell, RefCell},
    io::{self, IsTerminal, Write},
};

pub(crate) struct View {
    colours: bool,
    /// Whether it draws screens; else lines.
    screens: bool,
    /// Whether the other screen is shown.
    entered: Cell<bool>,
    /// The next second that gets a line, and what was said last.
    said: Cell<(u64, &'static str)>,
    last: RefCell<Vec<Line>>,
}

/// The other screen, no cursor, no line wraps.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

impl View {
    pub(crate) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let screens = io::stdout().is_terminal() && !dumb;
        let colours = screens && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        Self { colours, screens, entered: Cell::new(false), said: Cell::new((1, "")), last: RefCell::default() }
    }

    pub(crate) fn begin(&self, settings: Settings) {
        if self.screens {
            self.entered.set(true);
            return write(ENTER);
        }
        let Settings { length, seed, protection } = settings;
        let mut text = format!(
            "Buttress gateway, a demo of {length:?} (seed {seed})\n\n\
             Clients call three clusters, a, b and c, through a gateway; endpoints fail on a script. A fourth one, d, works\n\
             all the time, and for a while far more comes to it than it can do.\n\
             Beside it a small client asks the same endpoints in turn, without the gateway.\n\
             Good is a 200 with its whole body within {PATIENCE:?}. The numbers are of all calls so far;\n\
             what the layers did is of the last second. A bulkhead lets {LIMIT} reports in at once.\n\
             Who has waited for {LONG:?} at d counts as one who has no good answer so far.\n\n"
        );
        if !protection {
            text += "PROTECTION IS OFF: no deadline, retry, breaker, bulkhead, shedding or canary; endpoints are taken in turn.\n\n";
        }
        write(&text);
    }

    /// Shows a moment.
    pub(crate) fn show(&self, frame: &Frame) {
        if self.screens {
            let lines = frame.screen();
            let drawn: Vec<_> = lines.iter().map(|line| line.render(self.colours) + "\x1b[K").collect();
            // No line break after the last one, which would scroll.
            write(&format!("\x1b[H{}\x1b[J", drawn.join("\r\n")));
            *self.last.borrow_mut() = lines;
            return;
        }
        let (mut second, mut said) = self.said.get();
        if frame.caption != said {
            said = frame.caption;
            write(&format!("---- {:.1}s: {said}\n", frame.elapsed.as_secs_f64()));
        }
        if frame.elapsed.as_secs() >= second {
            second = frame.elapsed.as_secs() + 1;
            write(&format!("{}\n", frame.row()));
        }
        self.said.set((second, said));
    }

    /// What all of it comes to.
    pub(crate) fn end(&self, verdict: &[verdict::Line]) {
        self.leave();
        let mut text = String::new();
        for line in self.last.borrow().iter() {
            text += &line.render(self.colours);
            text.push('\n');
        }
        let paint = |text: &str, look: Look| if self.colours { look.paint(text) } else { text.to_owned() };
        text += &format!("\n{}\n", paint("Verdict", Look::Bold));
        for line in verdict {
            let mark = if line.holds { paint("ok  ", Look::Good) } else { paint("FAIL", Look::Bad) };
            text += &format!("  {mark}  {}\n", line.text);
        }
        text += &match verdict.iter().filter(|line| !line.holds).count() {
            0 => format!("\n{}\n", paint("It held.", Look::Bold)),
            failed => format!("\n{}\n", paint(&format!("It did not hold: {failed} of these failed."), Look::Bad)),
        };
        write(&text);
    }

    fn leave(&self) {
        if self.entered.take() {
            write(LEAVE);
        }
    }
}

impl Drop for View {
    /// However it ends, the terminal is as it was.
    fn drop(&mut self) {
        self.leave();
    }
}

/// Who reads this may have gone; the demo goes on.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
