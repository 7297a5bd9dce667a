//! The moving view of `run`: a table that is painted in place at a terminal, JSON lines where there is none.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::progress::bar;
use super::table_text::{Cell, Paint, age, columns, number, rate, visible};
use crate::telemetry::{Screen, StatusSnapshot, TableReading, TableState, TableStatus};

/// How the view looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveForm {
    /// Painted in place on standard error.
    Terminal,
    /// One JSON object per picture on standard output.
    JsonLines,
}

/// The view.
#[derive(Debug)]
pub struct Live {
    form: LiveForm,
    page: Option<String>,
}

/// More tables than this are counted, not shown: the view must fit a terminal.
const MAX_TABLES: usize = 20;
const MAX_PROBLEMS: usize = 3;
const MAX_BARS: usize = 4;

#[derive(Serialize)]
struct Line<'a> {
    at: chrono::DateTime<chrono::Utc>,
    epoch: u64,
    ready: bool,
    tables: Vec<TableLine<'a>>,
    problems: Vec<&'a str>,
}

#[derive(Serialize)]
struct TableLine<'a> {
    table: &'a str,
    state: TableState,
    reading: Option<TableReading>,
    changes: u64,
    changes_per_s: f64,
    freshness_s: Option<f64>,
    late: bool,
    rejects: u64,
    incomplete: Option<u64>,
}

impl Live {
    /// A view; `page` is the status page's address.
    pub fn new(form: LiveForm, page: Option<String>) -> Self {
        Self { form, page }
    }

    /// How long a picture stays.
    pub fn interval(&self) -> Duration {
        match self.form {
            LiveForm::Terminal => Duration::from_millis(500),
            LiveForm::JsonLines => Duration::from_secs(5),
        }
    }

    /// Paints what is there now. A terminal or reader that has gone away is no failure.
    pub fn draw(&self, snapshot: &StatusSnapshot) {
        match self.form {
            LiveForm::Terminal => Screen::paint(&picture(snapshot, self.page.as_deref(), Paint::new(true))),
            LiveForm::JsonLines => {
                let _reader_gone = writeln!(std::io::stdout().lock(), "{}", json_line(snapshot));
            }
        }
    }

    /// Leaves the last picture standing, so that what follows is printed below it.
    pub fn finish(&self, snapshot: &StatusSnapshot) {
        self.draw(snapshot);
        Screen::leave();
    }
}

fn json_line(snapshot: &StatusSnapshot) -> String {
    let line = Line {
        at: snapshot.now,
        epoch: snapshot.epoch,
        ready: snapshot.ready,
        tables: snapshot.tables.iter().map(table_line).collect(),
        problems: snapshot.problems.iter().map(|p| p.why.as_str()).collect(),
    };
    // Plain data with text keys always has a JSON form.
    serde_json::to_string(&line).unwrap_or_default()
}

fn table_line(table: &TableStatus) -> TableLine<'_> {
    TableLine {
        table: &table.table,
        state: table.state,
        reading: table.reading,
        changes: table.changes_total,
        changes_per_s: table.changes_per_s,
        freshness_s: table.freshness_s,
        late: table.late,
        rejects: table.rejects_open,
        incomplete: table.incomplete_open,
    }
}

fn picture(snapshot: &StatusSnapshot, page: Option<&str>, paint: Paint) -> String {
    let head = format!("epoch {}, up {}", snapshot.epoch, age(snapshot.uptime_s as f64));
    let page = page.map(|page| format!("  {}", paint.cyan(page))).unwrap_or_default();
    let mut out = format!("{}  {}{page}\n", paint.bold(&snapshot.name), paint.dim(&head));
    let rows: Vec<Vec<Cell>> = snapshot.tables.iter().take(MAX_TABLES).map(row).collect();
    out.push_str(&columns(paint, &["table", "state", ">changes", ">changes/s", ">freshness", ">rejects"], &rows));
    if snapshot.tables.len() > MAX_TABLES {
        out.push_str(&paint.dim(&format!("and {} more tables\n", snapshot.tables.len() - MAX_TABLES)));
    }
    for source in snapshot.sources.iter().filter(|source| source.behind.is_some_and(|behind| behind > 0)) {
        let behind = number(source.behind.unwrap_or_default());
        out.push_str(&paint.dim(&format!("source {}: {behind} behind\n", source.name)));
    }
    for table in snapshot.tables.iter().filter(|table| table.incomplete_open.is_some_and(|open| open > 0)) {
        let open = number(table.incomplete_open.unwrap_or_default());
        out.push_str(&format!("{} {}: {open} partial rows without a base\n", paint.red("!"), table.table));
    }
    let reading = snapshot.tables.iter().filter_map(|table| Some((table, table.reading.filter(|r| r.of > 0)?)));
    for (table, reading) in reading.take(MAX_BARS) {
        let left = reading.left_s.map(|seconds| format!(", {} left", age(seconds))).unwrap_or_default();
        out.push_str(&format!("{} rows{left}\n", bar(&table.table, reading.rows, reading.of.max(reading.rows), paint)));
    }
    for problem in snapshot.problems.iter().rev().take(MAX_PROBLEMS) {
        let first_line = visible(problem.why.lines().next().unwrap_or_default());
        out.push_str(&format!("{} {}: {first_line}\n", paint.red("!"), problem.what));
    }
    if let Some(why) = &snapshot.account.imbalance {
        out.push_str(&format!("{}\n", paint.red(&format!("the account is not balanced: {}", visible(why)))));
    }
    out
}

/// How far the rows of a table have been read.
pub(super) fn reading_cell(reading: Option<TableReading>) -> Cell {
    Cell::painted(reading.map(|reading| reading.words()).unwrap_or_default(), Paint::yellow)
}

fn row(table: &TableStatus) -> Vec<Cell> {
    let state: Cell = match table.state {
        TableState::Running | TableState::Waiting if table.reading.is_some() => reading_cell(table.reading),
        TableState::Running if table.late => Cell::painted("late", Paint::red),
        TableState::Running => Cell::painted("running", Paint::green),
        TableState::Waiting => Cell::painted("waiting", Paint::dim),
        stopped => Cell::painted(stopped.word(), Paint::red),
    };
    let rejects = number(table.rejects_open);
    vec![
        table.table.as_str().into(),
        state,
        number(table.changes_total).into(),
        rate(table.changes_per_s).into(),
        table.freshness_s.map_or("-".into(), age).into(),
        if table.rejects_open > 0 { Cell::painted(rejects, Paint::yellow) } else { rejects.into() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Status;

    #[test]
    fn a_table_that_is_being_read_has_a_bar() {
        let mut snapshot = snapshot();
        let reading = TableReading { rows: 1500, of: 3000, left_s: Some(20.0), ..TableReading::default() };
        snapshot.tables[0].reading = Some(reading);
        let text = picture(&snapshot, None, Paint::plain());
        assert!(text.contains("orders  reading 50%"), "{text}");
        let bar = format!("orders {}{} 1 500 of 3 000 rows, 20 s left", "█".repeat(15), "░".repeat(15));
        assert!(text.contains(&bar), "{text}");
    }

    fn snapshot() -> StatusSnapshot {
        let status = Status::new("shop", 300);
        status.update(|s| {
            s.epoch = 4;
            let table = TableStatus { table: "orders".into(), state: TableState::Running, ..TableStatus::default() };
            s.tables = vec![TableStatus { changes_total: 1234, changes_per_s: 56.0, rejects_open: 2, ..table }];
        });
        status.problem("load of group sales", "connect: refused\n  help: start it", None);
        status.snapshot()
    }

    #[test]
    fn the_picture_shows_what_matters() {
        let text = picture(&snapshot(), Some("http://127.0.0.1:9464/"), Paint::plain());
        let expected = "shop  epoch 4, up 0.0 s  http://127.0.0.1:9464/\n\
                        table   state    changes  changes/s  freshness  rejects\n\
                        orders  running    1 234         56          -        2\n\
                        ! load of group sales: connect: refused\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn without_a_terminal_every_picture_is_one_json_object() {
        let line: serde_json::Value = serde_json::from_str(&json_line(&snapshot())).expect("JSON");
        assert_eq!(line["tables"][0]["changes"], 1234);
        assert_eq!(line["tables"][0]["state"], "running");
        assert!(!json_line(&snapshot()).contains('\n'));
    }
}
