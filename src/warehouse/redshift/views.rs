//! Views for people and their tools, in a schema of their own: every table without its system columns and without what is
//! deleted, and how fresh the tables are.
//!
//! They are bound late, so no change of a table meets a view that stands on it. A load does not need them: what cannot be
//! made is said, with what a person can do.

use super::Redshift;
use super::session::Session;
use super::sql::{Names, STATE_PREFIX};
use super::types::LIMITS;
use crate::contract::{Contract, Type};
use crate::epoch::DeleteMode;
use crate::error::Result;
use crate::warehouse::names::{literal, live, quote};

/// The view over the freshness of all tables.
const FRESHNESS: &str = "freshness";

/// The view of a table: plain columns, so that a tool can put its own queries around it.
pub(super) fn of_table(views: &str, names: &Names, contract: &Contract, mode: DeleteMode) -> String {
    let column = |column: &crate::contract::Column| {
        let name = quote(&column.name);
        if column.data_type == Type::Json { format!("{} AS {name}", document(&name)) } else { name }
    };
    let columns = contract.output.columns.iter().map(column).collect::<Vec<_>>().join(", ");
    let shown = if mode == DeleteMode::Hard { String::new() } else { format!(" WHERE {}", live(mode)) };
    format!(
        "CREATE OR REPLACE VIEW {}.{} AS SELECT {columns} FROM {}{shown} WITH NO SCHEMA BINDING",
        quote(views),
        quote(&contract.table),
        names.of(&contract.table)
    )
}

/// A document as text, because tools know no SUPER. One that is too long for a text is named by its length, so that it does
/// not take the whole view from everybody. Of nothing JSON_SERIALIZE would make the text `null`.
fn document(column: &str) -> String {
    let most = LIMITS.text_bytes;
    format!(
        "CASE WHEN JSON_SIZE({column}) > {most} THEN '{{\"_bytes_too_long_for_text\":' || CAST(JSON_SIZE({column}) AS varchar) || '}}' \
         WHEN {column} IS NOT NULL THEN JSON_SERIALIZE({column}) END"
    )
}

/// The view over the control tables `states`.
pub(super) fn of_freshness(views: &str, names: &Names, states: &[String]) -> String {
    let part = |state: &String| {
        format!(
            "SELECT table_name, max_source_time_us, applied_at_us, applied, epoch FROM {} WHERE table_name <> '' AND epoch > 0",
            names.of(state)
        )
    };
    let time = |column: &str| format!("TIMESTAMP 'epoch' + {column} / 1000000 * INTERVAL '1 second'");
    let (committed, loaded) = (time("max_source_time_us"), time("applied_at_us"));
    format!(
        "CREATE OR REPLACE VIEW {}.{FRESHNESS} AS SELECT table_name, {committed} AS committed_at, {loaded} AS loaded_at, \
         DATEDIFF(second, {committed}, getdate()) AS lag_seconds, applied AS changes, epoch FROM ({}) AS tables \
         WITH NO SCHEMA BINDING",
        quote(views),
        states.iter().map(part).collect::<Vec<_>>().join(" UNION ALL ")
    )
}

impl Redshift {
    /// Makes the schema of the views, and the view over freshness.
    pub(super) async fn make_freshness(&self) {
        if let Err(error) = self.try_make_freshness().await {
            let views = &self.views;
            tracing::warn!(
                "make the view {views}.{FRESHNESS}: {error}; loads go on without it: let the loader's user create in {views}"
            );
        }
    }

    async fn try_make_freshness(&self) -> Result<()> {
        let states = self.tables_like(STATE_PREFIX).await?;
        if states.is_empty() {
            return Ok(());
        }
        let mut lease = self.sessions.lease().await?;
        let there = format!("SELECT 1 FROM pg_namespace WHERE nspname = {}", literal(&self.views.to_ascii_lowercase()));
        if lease.session.run(&there, None).await?.rows.is_empty() {
            lease.session.run(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote(&self.views)), None).await?;
        }
        lease.session.run(&of_freshness(&self.views, &self.names, &states), None).await?;
        self.sessions.give_back(lease);
        Ok(())
    }

    /// Makes the view of a table, or makes it anew where its columns have changed.
    pub(super) async fn make_view(&self, session: &mut Session, contract: &Contract, mode: DeleteMode) {
        let (views, table) = (&self.views, contract.table.as_str());
        let statement = of_table(views, &self.names, contract, mode);
        if let Err(error) = session.run(&statement, Some(table)).await {
            tracing::warn!(
                table,
                "make the view {views}.{table}: {error}; loads go on without it; to do it: {statement}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Column, TableSchema};

    #[test]
    fn a_view_shows_what_people_see() {
        let columns = vec![Column::new("id", Type::BigInt), Column::new("doc", Type::Json)];
        let output = TableSchema { columns, key: vec!["id".into()] };
        let contract = Contract { table: "orders".into(), version: 1, input: output.clone(), output };
        let view = |mode| of_table("bi", &Names::new("shop"), &contract, mode);
        let begin =
            &"CREATE OR REPLACE VIEW \"bi\".\"orders\" AS SELECT \"id\", DOC AS \"doc\" FROM \"shop\".\"orders\""
                .replace("DOC", &document("\"doc\""));
        assert_eq!(view(DeleteMode::Hard), format!("{begin} WITH NO SCHEMA BINDING"));
        assert_eq!(view(DeleteMode::Soft), format!("{begin} WHERE _deleted IS NOT TRUE WITH NO SCHEMA BINDING"));
        assert_eq!(view(DeleteMode::History), format!("{begin} WHERE _current IS TRUE WITH NO SCHEMA BINDING"));
    }
}
