//! Lines of a screen: coloured pieces, numbers that can be read from afar, and curves.

/// How a piece of a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Look {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Fair,
    Bad,
}

impl Look {
    /// By how much of all is good.
    pub(crate) fn of(share: f64) -> Self {
        match share {
            0.97.. => Self::Good,
            0.85.. => Self::Fair,
            _ => Self::Bad,
        }
    }

    /// `text` with the codes that make it look so.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Fair => "33",
            Self::Bad => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A line, piece by piece; no longer than [`WIDTH`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pieces: Vec<(String, Look)>,
    width: usize,
}

/// Columns of a screen.
pub(crate) const WIDTH: usize = 80;

impl Line {
    /// Adds a piece; what does not fit is left out.
    pub(crate) fn put(mut self, text: impl AsRef<str>, look: Look) -> Self {
        let text: String = text.as_ref().chars().take(WIDTH - self.width).collect();
        self.width += text.chars().count();
        self.pieces.push((text, look));
        self
    }

    /// Goes on at this column, or where it is if it has come further.
    pub(crate) fn at(self, column: usize) -> Self {
        let gap = column.saturating_sub(self.width);
        self.put(" ".repeat(gap), Look::Plain)
    }

    pub(crate) fn render(&self, colours: bool) -> String {
        let paint = |(text, look): &(String, Look)| if colours { look.paint(text) } else { text.clone() };
        self.pieces.iter().map(paint).collect()
    }
}

/// Rows of a big number.
const ROWS: usize = 5;

/// A number in block letters.
pub(crate) fn big(text: &str) -> [String; ROWS] {
    let mut rows = [const { String::new() }; ROWS];
    for glyph in text.chars().map(glyph) {
        for (row, part) in rows.iter_mut().zip(glyph) {
            row.extend(part.chars().map(|c| if c == '#' { '█' } else { ' ' }).chain([' ']));
        }
    }
    rows
}

fn glyph(c: char) -> [&'static str; ROWS] {
    match c {
        '0' => ["####", "#  #", "#  #", "#  #", "####"],
        '1' => ["  # ", " ## ", "  # ", "  # ", " ###"],
        '2' => ["####", "   #", "####", "#   ", "####"],
        '3' => ["####", "   #", " ###", "   #", "####"],
        '4' => ["#  #", "#  #", "####", "   #", "   #"],
        '5' => ["####", "#   ", "####", "   #", "####"],
        '6' => ["####", "#   ", "####", "#  #", "####"],
        '7' => ["####", "   #", "  # ", " #  ", " #  "],
        '8' => ["####", "#  #", "####", "#  #", "####"],
        '9' => ["####", "#  #", "####", "   #", "####"],
        '.' => [" ", " ", " ", " ", "#"],
        '%' => ["#  #", "  # ", " #  ", "#   ", "#  #"],
        _ => ["    ", "    ", "####", "    ", "    "],
    }
}

/// A curve of shares: a point each, the height its share.
pub(crate) fn curve(shares: &[Option<f64>]) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let step = |share: f64| STEPS[((share * 8.0) as usize).min(7)];
    shares.iter().map(|share| share.map_or(' ', step)).collect()
}

/// How much of `width` is over.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let done = ((share * width as f64) as usize).min(width);
    format!("{}{}", "━".repeat(done), "╌".repeat(width - done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_exceeds_the_screen_and_has_colours_only_where_they_are_wanted() {
        let line = Line::default().put("x".repeat(70), Look::Bad).at(75).put("y".repeat(20), Look::Plain);
        let plain = line.render(false);
        assert_eq!(plain.chars().count(), WIDTH);
        assert_eq!(&plain[68..], "xx     yyyyy");
        assert!(line.render(true).starts_with("\x1b[31mx"));
        assert_eq!(Line::default().put("far", Look::Plain).at(1).render(true), "far");
    }

    #[test]
    fn big_numbers_have_rows_of_one_width() {
        for text in ["99.2%", "100%", "  -"] {
            let rows = big(text).map(|row| row.chars().count());
            assert_eq!(rows, [rows[0]; ROWS], "{text}");
        }
        assert_eq!(big("1.")[4], " ███ █ ");
    }

    #[test]
    fn a_curve_rises_with_the_share() {
        assert_eq!(curve(&[Some(0.0), None, Some(0.5), Some(1.0)]), "▁ ▅█");
        assert_eq!(bar(0.5, 4), "━━╌╌");
    }
}
