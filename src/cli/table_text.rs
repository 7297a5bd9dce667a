//! Aligned columns, numbers and ages for people; colours only where a terminal is.

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    colour: bool,
}

impl Paint {
    /// Colours when `terminal`.
    pub fn new(terminal: bool) -> Self {
        Self { colour: terminal }
    }

    /// No colours.
    pub fn plain() -> Self {
        Self { colour: false }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Headings.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// What is wrong.
    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    /// What is well.
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    /// What wants attention.
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// Names of things.
    pub fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }
}

/// How a cell is painted, after it was padded.
pub type Colour = fn(Paint, &str) -> String;

/// A cell: its text and its colour.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    /// A cell in a colour.
    pub fn painted(text: impl Into<String>, colour: Colour) -> Self {
        Self { text: visible(&text.into()), colour: Some(colour) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: visible(&text.into()), colour: None }
    }
}

/// Text from outside without what would move a terminal's cursor, change its colours or break a line.
pub fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Rows below a heading. A heading that begins with `>` makes its column flush right.
pub fn columns(paint: Paint, headings: &[&str], rows: &[Vec<Cell>]) -> String {
    let name = |heading: &str| heading.trim_start_matches('>').to_owned();
    let widths: Vec<usize> = (0..headings.len())
        .map(|i| {
            let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.text.chars().count());
            cells.chain([name(headings[i]).chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let pad = |i: usize, text: &str| {
        let space = " ".repeat(widths[i].saturating_sub(text.chars().count()));
        let last = i + 1 == headings.len();
        match (headings[i].starts_with('>'), last) {
            (true, _) => space + text,
            (false, true) => text.to_owned(),
            (false, false) => text.to_owned() + &space,
        }
    };
    let heading: Vec<String> = headings.iter().enumerate().map(|(i, h)| paint.dim(&pad(i, &name(h)))).collect();
    let mut out = heading.join("  ").trim_end().to_owned() + "\n";
    for row in rows {
        let cells = row.iter().take(headings.len()).enumerate().map(|(i, cell)| {
            let text = pad(i, &cell.text);
            cell.colour.map_or(text.clone(), |colour| colour(paint, &text))
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `1234567` as `1 234 567`.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Seconds as a person says them: `0.4 s`, `12 s`, `3 m 05 s`, `2 h 10 m`, `3 d 4 h`.
pub fn age(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{:.1} s", seconds.max(0.0)),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} m {:02} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {:02} m", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Per second: `0`, `0.4`, `12`, `1 234`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r <= 0.0 || !r.is_finite() => "0".into(),
        r if r < 10.0 => format!("{r:.1}"),
        r => number(r.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_colours_do_not_move_them() {
        let rows = vec![
            vec!["orders".into(), "12".into(), Cell::painted("late", Paint::red)],
            vec!["order_lines".into(), "1 234".into(), "".into()],
        ];
        let text = columns(Paint::plain(), &["table", ">rows", "state"], &rows);
        assert_eq!(text, "table         rows  state\norders          12  late\norder_lines  1 234\n");
        let coloured = columns(Paint::new(true), &["table", ">rows", "state"], &rows);
        assert!(coloured.contains("   12  \x1b[31mlate\x1b[0m"));
    }

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        let text = columns(Paint::plain(), &["why"], &[vec!["a\x1b[2Jb\nc".into()]]);
        assert_eq!(text, "why\na\u{fffd}[2Jb\u{fffd}c\n");
    }

    #[test]
    fn numbers_and_ages_are_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1 000", "1 234 567"]);
        let ages = [0.44, 12.4, 65.0, 7800.0, 100_000.0].map(age);
        assert_eq!(ages, ["0.4 s", "12 s", "1 m 05 s", "2 h 10 m", "1 d 3 h"]);
        assert_eq!([0.0, 0.44, 9.96, 1234.4].map(rate), ["0", "0.4", "10.0", "1 234"]);
    }
}
