//! Distribution and sort key: given to a table that is made, and only ever said of one that is there.

use super::Redshift;
use super::session::Session;
use super::sql::Names;
use crate::config::{Distribution, TableLayout};
use crate::contract::Contract;
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::names::{literal, quote};

/// What stands behind the columns of CREATE TABLE. Nothing: Redshift decides (`AUTO`).
pub(super) fn clause(layout: &TableLayout) -> String {
    let distribution = match &layout.distribution {
        Distribution::Auto => String::new(),
        Distribution::Even => " DISTSTYLE EVEN".to_owned(),
        Distribution::All => " DISTSTYLE ALL".to_owned(),
        Distribution::Key(column) => format!(" DISTSTYLE KEY DISTKEY ({})", quote(column)),
    };
    let sort = if layout.sort.is_empty() { String::new() } else { format!(" COMPOUND SORTKEY ({})", columns(layout)) };
    distribution + &sort
}

/// What makes a stage's rows lie where the table's do, as far as the layout says it.
pub(super) fn lies(layout: &TableLayout) -> String {
    clause(&TableLayout { sort: Vec::new(), ..layout.clone() })
}

/// What gives a table that is there this layout, one statement each: Redshift rewrites the table, which may take long.
pub(super) fn alters(names: &Names, table: &str, layout: &TableLayout) -> Vec<String> {
    let alter = |what: String| format!("ALTER TABLE {} ALTER {what}", names.of(table));
    let distribution = match &layout.distribution {
        Distribution::Auto => None,
        Distribution::Even => Some(alter("DISTSTYLE EVEN".to_owned())),
        Distribution::All => Some(alter("DISTSTYLE ALL".to_owned())),
        Distribution::Key(column) => Some(alter(format!("DISTSTYLE KEY DISTKEY {}", quote(column)))),
    };
    let sort = (!layout.sort.is_empty()).then(|| alter(format!("COMPOUND SORTKEY ({})", columns(layout))));
    distribution.into_iter().chain(sort).collect()
}

fn columns(layout: &TableLayout) -> String {
    layout.sort.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ")
}

/// What a layout names must be there.
pub(super) fn check(contract: &Contract, layout: &TableLayout) -> Result<()> {
    let key = match &layout.distribution {
        Distribution::Key(column) => Some(column),
        _ => None,
    };
    match key.into_iter().chain(&layout.sort).find(|column| contract.output.column(column).is_none()) {
        None => Ok(()),
        Some(column) => Err(Error::new(
            ErrorKind::Table(contract.table.clone()),
            format!(
                "`distribution` or `sort` of table {} names the column {column}, which it does not have",
                contract.table
            ),
        )
        .help("correct the topology; then `dataflow table resume`")),
    }
}

impl Redshift {
    /// What the topology says of the table.
    pub(super) fn layout(&self, table: &str) -> TableLayout {
        self.layouts.get(table).cloned().unwrap_or_default()
    }

    /// Says so when a table that is there lies otherwise. It is not changed: that rewrites it, and keeps people out.
    pub(super) async fn compare_layout(&self, session: &mut Session, table: &str) -> Result<()> {
        let layout = self.layout(table);
        let alters = alters(&self.names, table, &layout);
        if alters.is_empty() {
            return Ok(());
        }
        // Tables without rows do not stand there.
        let statement = format!(
            "SELECT diststyle, sortkey1, sortkey_num FROM svv_table_info WHERE \"schema\" = {} AND \"table\" = {}",
            literal(&self.names.schema().to_ascii_lowercase()),
            literal(&table.to_ascii_lowercase())
        );
        let answer = session.run(&statement, Some(table)).await?;
        if let Some([style, first, count]) = answer.rows.first().map(Vec::as_slice)
            && !lies_so(&layout, style.as_deref(), first.as_deref(), count.as_deref())
        {
            let alters = alters.join("; ");
            tracing::warn!(
                table,
                "the table lies otherwise than the topology says, and is not changed; to do it: {alters}"
            );
        }
        Ok(())
    }
}

fn lies_so(layout: &TableLayout, style: Option<&str>, first: Option<&str>, count: Option<&str>) -> bool {
    let style = style.unwrap_or_default().trim();
    let distribution = match &layout.distribution {
        Distribution::Auto => true,
        Distribution::Even => style == "EVEN",
        Distribution::All => style == "ALL",
        Distribution::Key(column) => style.eq_ignore_ascii_case(&format!("KEY({column})")),
    };
    let sorted = |column: &String| {
        let count = count.and_then(|count| count.trim().parse::<usize>().ok());
        first.is_some_and(|first| first.trim().eq_ignore_ascii_case(column)) && count == Some(layout.sort.len())
    };
    distribution && layout.sort.first().is_none_or(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(distribution: Distribution, sort: &[&str]) -> TableLayout {
        TableLayout { distribution, sort: sort.iter().map(|column| (*column).to_owned()).collect() }
    }

    #[test]
    fn a_table_is_made_with_its_layout_and_altered_by_a_person() {
        let names = Names::new("shop");
        let key = layout(Distribution::Key("id".into()), &["at", "id"]);
        assert_eq!(clause(&key), " DISTSTYLE KEY DISTKEY (\"id\") COMPOUND SORTKEY (\"at\", \"id\")");
        assert_eq!(
            alters(&names, "t", &key),
            [
                "ALTER TABLE \"shop\".\"t\" ALTER DISTSTYLE KEY DISTKEY \"id\"",
                "ALTER TABLE \"shop\".\"t\" ALTER COMPOUND SORTKEY (\"at\", \"id\")"
            ]
        );
        assert_eq!(clause(&layout(Distribution::All, &[])), " DISTSTYLE ALL");
        assert_eq!(
            (clause(&TableLayout::default()), alters(&names, "t", &TableLayout::default()).len()),
            (String::new(), 0)
        );
    }

    #[test]
    fn what_lies_otherwise_is_seen() {
        let so = |layout: &TableLayout, style, first, count| lies_so(layout, Some(style), Some(first), Some(count));
        let key = layout(Distribution::Key("id".into()), &["at", "id"]);
        assert!(so(&key, "KEY(id)", "at", "2"));
        assert!(
            !so(&key, "KEY(other)", "at", "2") && !so(&key, "KEY(id)", "at", "1") && !so(&key, "KEY(id)", "id", "2")
        );
        assert!(so(&layout(Distribution::Even, &[]), "EVEN", "AUTO(SORTKEY)", "0"));
        assert!(!so(&layout(Distribution::Even, &[]), "AUTO(EVEN)", "AUTO(SORTKEY)", "0"));
    }
}
