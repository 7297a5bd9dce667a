//! Distribution and sort key: given to a table that is made, and only ever said of one that is there.

use super::Redshift;
use super::session::Session;
use super::sql::Names;
use crate::config::{Distribution, TableLayout};
use crate::contract::Contract;
use crate::error::{Disposition, Error, ErrorKind, Result};
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
    distributed(names, table, layout).into_iter().chain(sorted(names, table, layout)).collect()
}

fn distributed(names: &Names, table: &str, layout: &TableLayout) -> Option<String> {
    let style = match &layout.distribution {
        Distribution::Auto => return None,
        Distribution::Even => "DISTSTYLE EVEN".to_owned(),
        Distribution::All => "DISTSTYLE ALL".to_owned(),
        Distribution::Key(column) => format!("DISTSTYLE KEY DISTKEY {}", quote(column)),
    };
    Some(format!("ALTER TABLE {} ALTER {style}", names.of(table)))
}

fn sorted(names: &Names, table: &str, layout: &TableLayout) -> Option<String> {
    let alter = || format!("ALTER TABLE {} ALTER COMPOUND SORTKEY ({})", names.of(table), columns(layout));
    (!layout.sort.is_empty()).then(alter)
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
        if alters(&self.names, table, &layout).is_empty() {
            return Ok(());
        }
        let lies = self.lies(session, table).await?;
        let missing = missing(&self.names, table, &layout, &lies);
        if !missing.is_empty() {
            let alters = missing.join("; ");
            tracing::warn!(
                table,
                "the table lies otherwise than the topology says, and is not changed; to do it: {alters}"
            );
        }
        Ok(())
    }

    async fn lies(&self, session: &mut Session, table: &str) -> Result<Lies> {
        let (schema, name) = (literal(&self.names.schema().to_ascii_lowercase()), literal(&table.to_ascii_lowercase()));
        let keys = format!(
            "SELECT column_name, distkey, sortkey FROM svv_redshift_columns \
             WHERE schema_name = {schema} AND table_name = {name} AND (distkey OR sortkey <> 0)"
        );
        let mut lies = Lies::default();
        for row in session.run(&keys, Some(table)).await?.rows {
            let [Some(column), distkey, sortkey] = row.as_slice() else { continue };
            if distkey.as_deref() == Some("t") {
                lies.distkey = Some(column.clone());
            }
            let place = sortkey.as_deref().and_then(|place| place.trim().parse::<i64>().ok()).unwrap_or(0);
            lies.sort.extend((place != 0).then(|| (place, column.clone())));
        }
        lies.sort.sort_by_key(|(place, _)| place.abs());
        // Tables without rows do not stand there.
        let style = format!("SELECT diststyle FROM svv_table_info WHERE \"schema\" = {schema} AND \"table\" = {name}");
        match session.run(&style, None).await {
            Err(error) if error.disposition() == Disposition::Retry => return Err(error),
            // It is a view for superusers, and those whom they let.
            Err(error) => {
                let grant = "GRANT SELECT ON svv_table_info TO the user";
                tracing::warn!(table, "see how the table is distributed: {error}; loads go on: {grant}");
            }
            Ok(answer) => lies.style = answer.single().map(|style| style.trim().to_owned()),
        }
        Ok(lies)
    }
}

/// How a table lies.
#[derive(Debug, Clone, Default)]
struct Lies {
    /// `None`: it has no rows, so nobody says.
    style: Option<String>,
    distkey: Option<String>,
    /// The columns of the sort key by their places, which are negative for some of an interleaved one.
    sort: Vec<(i64, String)>,
}

/// What a table that lies like that lacks to lie as the layout says.
fn missing(names: &Names, table: &str, layout: &TableLayout, lies: &Lies) -> Vec<String> {
    let style = |wanted: &str| lies.style.as_ref().is_none_or(|style| style == wanted) && lies.distkey.is_none();
    let lies_so = match &layout.distribution {
        Distribution::Auto => true,
        Distribution::Even => style("EVEN"),
        Distribution::All => style("ALL"),
        // A key that Redshift has chosen itself may be another one tomorrow.
        Distribution::Key(column) => {
            lies.distkey.as_ref().is_some_and(|key| key.eq_ignore_ascii_case(column))
                && !lies.style.as_ref().is_some_and(|style| style.starts_with("AUTO"))
        }
    };
    let same = |((place, there), wanted): (&(i64, String), &String)| *place > 0 && there.eq_ignore_ascii_case(wanted);
    let sorted_so =
        layout.sort.is_empty() || lies.sort.len() == layout.sort.len() && lies.sort.iter().zip(&layout.sort).all(same);
    let distribution = if lies_so { None } else { distributed(names, table, layout) };
    let sort = if sorted_so { None } else { sorted(names, table, layout) };
    distribution.into_iter().chain(sort).collect()
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
    fn only_what_lies_otherwise_is_said() {
        let names = Names::new("shop");
        let lies = |style: Option<&str>, distkey: Option<&str>, sort: &[(i64, &str)]| Lies {
            style: style.map(str::to_owned),
            distkey: distkey.map(str::to_owned),
            sort: sort.iter().map(|(place, column)| (*place, (*column).to_owned())).collect(),
        };
        let key = layout(Distribution::Key("ID".into()), &["at", "id"]);
        let both = alters(&names, "t", &key);
        let missing = |layout: &TableLayout, lies: Lies| missing(&names, "t", layout, &lies);
        let sorted = [(1, "at"), (2, "id")];
        assert_eq!(missing(&key, lies(Some("KEY(id)"), Some("id"), &sorted)), [""; 0]);
        assert_eq!(missing(&key, lies(None, Some("id"), &sorted)), [""; 0]);
        assert_eq!(missing(&key, lies(Some("KEY(at)"), Some("at"), &sorted)), both[..1]);
        assert_eq!(missing(&key, lies(Some("AUTO(KEY(id))"), Some("id"), &sorted)), both[..1]);
        for other in
            [&[(1, "at"), (2, "other")][..], &[(1, "id"), (2, "at")], &[(1, "at")], &[(1, "at"), (-2, "id")], &[]]
        {
            assert_eq!(missing(&key, lies(Some("KEY(id)"), Some("id"), other)), both[1..], "{other:?}");
        }
        assert_eq!(missing(&key, lies(Some("EVEN"), None, &[])), both);
        let even = layout(Distribution::Even, &[]);
        assert_eq!(missing(&even, lies(Some("EVEN"), None, &sorted)), [""; 0]);
        assert_eq!(missing(&even, lies(None, None, &[])), [""; 0], "an empty table does not say");
        assert_eq!(missing(&even, lies(Some("AUTO(EVEN)"), None, &[])).len(), 1);
        assert_eq!(missing(&even, lies(None, Some("id"), &[])).len(), 1);
    }
}
