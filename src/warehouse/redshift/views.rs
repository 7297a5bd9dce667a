//! Views for people and their tools, in a schema of their own: every table without its system columns and without what is
//! deleted, and how fresh the tables are.
//!
//! They are bound late, so no change of a table meets a view that stands on it. A load does not need them: what cannot be
//! made is said, with what a person can do.
//!
//! Several topologies may share the schema. Every view says in a comment whose it is and what it was made from. So a start
//! makes only what is not there, or was made from something else (by an older version, with other columns), and never takes
//! over what another topology shows. Freshness is a view of each topology, and one view over them all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::failure::is_doubtful;
use super::session::{Session, timeout};
use super::sql::{Names, STATE_PREFIX, readable};
use super::types::LIMITS;
use super::{Redshift, text};
use crate::contract::{Contract, Type};
use crate::epoch::DeleteMode;
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::warehouse::names::{literal, live, quote};

/// The view over the freshness of all tables.
const FRESHNESS: &str = "freshness";
/// In front of the names of the topologies' own.
const FRESHNESS_PREFIX: &str = "_dataflow_freshness_";
/// How much of a topology's name stands in the name of its own.
const READABLE: usize = 32;
/// How often a view is tried again that fails for no reason that Redshift gives.
const DOUBTS: usize = 3;
/// How long a view may wait for those who read it. Loads wait with it.
const PATIENCE: Duration = Duration::from_secs(60);
/// In front of the name of a view that is about to take another one's place, and of one that has lost it.
const NEXT_PREFIX: &str = "_dataflow_next_";
const LAST_PREFIX: &str = "_dataflow_last_";
/// How often the topologies that share the schema are counted again while others start.
const LOOKS: usize = 5;

/// A table that people are to see: its contract, and what a delete does.
pub type Shown = (Arc<Contract>, DeleteMode);

/// What a view's comment says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    /// `None`: all topologies that share the schema.
    topology: Option<String>,
    made_from: u64,
}

impl Note {
    const BEGIN: &str = "made by DataFlow for ";
    const ALL: &str = "all topologies";

    fn of(topology: Option<&str>, statement: &str) -> Self {
        Self { topology: topology.map(str::to_owned), made_from: xxh3_64(statement.as_bytes()) }
    }

    fn text(&self) -> String {
        let whose = self.topology.as_ref().map_or(Self::ALL.to_owned(), |name| format!("topology {name}"));
        format!("{}{whose} [{:016x}]", Self::BEGIN, self.made_from)
    }

    fn read(comment: &str) -> Option<Self> {
        let (whose, made_from) = comment.strip_prefix(Self::BEGIN)?.strip_suffix(']')?.rsplit_once(" [")?;
        let topology = if whose == Self::ALL { None } else { Some(whose.strip_prefix("topology ")?.to_owned()) };
        Some(Self { topology, made_from: u64::from_str_radix(made_from, 16).ok()? })
    }
}

/// The views that are there, by name, with what their comments say.
type Notes = BTreeMap<String, Option<Note>>;

/// What makes a view of a query.
fn made(views: &str, view: &str, query: &str) -> String {
    format!("CREATE OR REPLACE VIEW {}.{} AS {query} WITH NO SCHEMA BINDING", quote(views), quote(view))
}

/// What makes the view of a table.
pub(super) fn of_table(views: &str, names: &Names, contract: &Contract, mode: DeleteMode) -> String {
    made(views, &contract.table, &rows_of(names, contract, mode))
}

/// The view of a table: plain columns, so that a tool can put its own queries around it.
fn rows_of(names: &Names, contract: &Contract, mode: DeleteMode) -> String {
    let column = |column: &crate::contract::Column| {
        let name = quote(&column.name);
        if column.data_type == Type::Json { format!("{} AS {name}", document(&name)) } else { name }
    };
    let columns = contract.output.columns.iter().map(column).collect::<Vec<_>>().join(", ");
    let shown = if mode == DeleteMode::Hard { String::new() } else { format!(" WHERE {}", live(mode)) };
    format!("SELECT {columns} FROM {}{shown}", names.of(&contract.table))
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

/// The view of a topology over its control tables `states`.
fn of_freshness(topology: &str, names: &Names, states: &[String]) -> String {
    let part = |state: &String| {
        format!(
            "SELECT table_name, max_source_time_us, applied_at_us, applied, epoch, topology FROM {} \
             WHERE table_name <> '' AND epoch > 0 AND topology = {}",
            names.of(state),
            text(topology)
        )
    };
    let time = |column: &str| format!("TIMESTAMP 'epoch' + {column} / 1000000 * INTERVAL '1 second'");
    let (committed, loaded) = (time("max_source_time_us"), time("applied_at_us"));
    // It is the reader's session that asks, and getdate() is in that session's time zone, as what a TIMESTAMP is taken for when
    // it becomes a TIMESTAMPTZ: <https://docs.aws.amazon.com/redshift/latest/dg/r_GETDATE.html>,
    // <https://docs.aws.amazon.com/redshift/latest/dg/c_Supported_data_types.html#r_Type_conversion>.
    let now = "CAST(getdate() AS timestamptz) AT TIME ZONE 'UTC'";
    format!(
        "SELECT table_name, {committed} AS committed_at, {loaded} AS loaded_at, \
         DATEDIFF(second, {committed}, {now}) AS lag_seconds, applied AS changes, epoch, topology FROM ({}) AS tables",
        states.iter().map(part).collect::<Vec<_>>().join(" UNION ALL ")
    )
}

/// The name of a topology's own.
fn freshness_of(topology: &str) -> String {
    let readable: String = readable(topology).chars().take(READABLE).collect();
    format!("{FRESHNESS_PREFIX}{readable}_{:08x}", xxh3_64(topology.as_bytes()) as u32)
}

/// The view over those of all topologies.
fn of_all(views: &str, parts: &BTreeSet<String>) -> String {
    let part = |part: &String| {
        format!(
            "SELECT table_name, committed_at, loaded_at, lag_seconds, changes, epoch, topology FROM {}.{}",
            quote(views),
            quote(part)
        )
    };
    parts.iter().map(part).collect::<Vec<_>>().join(" UNION ALL ")
}

/// What is said of a view that another topology shows.
fn taken(views: &str, view: &str, other: &str, ours: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("the view {views}.{view} shows a table of topology {other}; {ours} would take it away from its readers"),
    )
    .help(format!(
        "give {ours} a schema of its own for its views (`warehouse.views`), or the table another name; if {other} is gone, \
         DROP VIEW {}.{}",
        quote(views),
        quote(view)
    ))
}

impl Redshift {
    /// Makes the views of tables that are there, and those over freshness, as far as they are not there yet.
    pub(super) async fn show(&self, tables: &[Shown]) -> Result<()> {
        if self.views.is_empty() {
            return Ok(());
        }
        match self.try_show(tables).await {
            Err(error) if error.kind() != &ErrorKind::Config && error.disposition() != Disposition::Retry => {
                let views = &self.views;
                tracing::warn!(
                    "make the views in {views}: {error}; loads go on without: let the loader's user create in {views}, and own \
                     what is there"
                );
                Ok(())
            }
            shown => shown,
        }
    }

    async fn try_show(&self, tables: &[Shown]) -> Result<()> {
        let there: BTreeSet<String> = self.tables_like("").await?.into_iter().collect();
        let mut lease = self.sessions.lease().await?;
        let session = &mut lease.session;
        self.make_schema(session).await?;
        let notes = self.notes(session, "").await?;
        for (contract, _) in tables {
            self.free(&notes, &contract.table)?;
        }
        self.clear_aside(session, &notes).await?;
        let tables = tables.iter().filter(|(contract, _)| there.contains(&contract.table.to_ascii_lowercase()));
        for (contract, mode) in tables {
            self.renew(session, &notes, contract, *mode).await?;
        }
        let states: Vec<String> = there.into_iter().filter(|name| name.starts_with(STATE_PREFIX)).collect();
        if !states.is_empty() {
            self.show_freshness(session, &states, notes).await?;
        }
        self.sessions.give_back(lease);
        Ok(())
    }

    /// Drops what a crash has left of views that were made anew.
    async fn clear_aside(&self, session: &mut Session, notes: &Notes) -> Result<()> {
        let ours = |note: &Note| note.topology.as_ref().is_none_or(|topology| *topology == self.topology);
        for (name, note) in notes {
            let aside = [NEXT_PREFIX, LAST_PREFIX].iter().any(|prefix| name.starts_with(prefix));
            if aside && note.as_ref().is_some_and(ours) {
                session.run(&format!("DROP VIEW IF EXISTS {}", self.view(name)), Some(name)).await?;
            }
        }
        Ok(())
    }

    async fn make_schema(&self, session: &mut Session) -> Result<()> {
        let schema =
            format!("SELECT 1 FROM pg_namespace WHERE nspname = {}", literal(&self.views.to_ascii_lowercase()));
        if session.run(&schema, None).await?.rows.is_empty() {
            session.run(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote(&self.views)), None).await?;
        }
        Ok(())
    }

    async fn show_freshness(&self, session: &mut Session, states: &[String], mut notes: Notes) -> Result<()> {
        let ours = of_freshness(&self.topology, &self.names, states);
        self.make(session, &notes, &freshness_of(&self.topology), &ours, Some(&self.topology)).await?;
        // Another topology that starts meanwhile makes the view without ours, or we without its.
        for _ in 0..LOOKS {
            let before = self.parts(&notes);
            notes = self.notes(session, "").await?;
            let parts = self.parts(&notes);
            let all = of_all(&self.views, &self.answering(session, &notes, parts.clone()).await?);
            self.make(session, &notes, FRESHNESS, &all, None).await?;
            if parts == before {
                return Ok(());
            }
        }
        Ok(())
    }

    fn parts(&self, notes: &Notes) -> BTreeSet<String> {
        notes.keys().filter(|name| name.starts_with(FRESHNESS_PREFIX)).cloned().collect()
    }

    /// Those of other topologies that can be read: what they stand on may be gone.
    async fn answering(
        &self,
        session: &mut Session,
        notes: &Notes,
        parts: BTreeSet<String>,
    ) -> Result<BTreeSet<String>> {
        let all = Note::of(None, &made(&self.views, FRESHNESS, &of_all(&self.views, &parts)));
        if notes.get(FRESHNESS) == Some(&Some(all)) {
            return Ok(parts);
        }
        let mut answering = BTreeSet::new();
        for part in parts {
            let of = format!("{}.{}", quote(&self.views), quote(&part));
            match session.run(&format!("SELECT 1 FROM {of} LIMIT 1"), None).await {
                Err(error) if error.disposition() == Disposition::Retry => return Err(error),
                Err(error) => tracing::warn!(
                    "{}.{FRESHNESS} is made without {part}: {error}; if that topology is gone: DROP VIEW {of}",
                    self.views
                ),
                Ok(_) => {
                    answering.insert(part);
                }
            }
        }
        Ok(answering)
    }

    /// The views that are there whose names begin like that.
    async fn notes(&self, session: &mut Session, view: &str) -> Result<Notes> {
        let one = if view.is_empty() { String::new() } else { format!(" AND c.relname = {}", literal(view)) };
        let statement = format!(
            "SELECT c.relname, d.description FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_description d ON d.objoid = c.oid AND d.objsubid = 0 WHERE c.relkind = 'v' AND n.nspname = {}{one}",
            literal(&self.views.to_ascii_lowercase())
        );
        let rows = session.run(&statement, None).await?.rows;
        let note = |row: Vec<Option<String>>| {
            let mut cells = row.into_iter();
            Some((cells.next()??, cells.next()?.as_deref().and_then(Note::read)))
        };
        Ok(rows.into_iter().filter_map(note).collect())
    }

    /// Fails where the view is another topology's.
    fn free(&self, notes: &Notes, view: &str) -> Result<()> {
        match notes.get(&view.to_ascii_lowercase()) {
            Some(Some(Note { topology: Some(other), .. })) if *other != self.topology => {
                Err(taken(&self.views, view, other, &self.topology))
            }
            _ => Ok(()),
        }
    }

    /// Makes the view of a table, or makes it anew where its columns have changed.
    pub(super) async fn make_view(&self, session: &mut Session, contract: &Contract, mode: DeleteMode) -> Result<()> {
        if self.views.is_empty() {
            return Ok(());
        }
        let notes = match self.notes(session, &contract.table.to_ascii_lowercase()).await {
            // Nothing may have been shown here yet.
            Ok(notes) if notes.is_empty() => self.make_schema(session).await.map(|()| notes),
            notes => notes,
        };
        let notes = match notes {
            Err(error) if error.disposition() == Disposition::Retry => return Err(error),
            notes => notes.unwrap_or_default(),
        };
        if let Err(error) = self.free(&notes, &contract.table) {
            tracing::error!(table = contract.table, "{error}; loads go on");
            return Ok(());
        }
        self.renew(session, &notes, contract, mode).await
    }

    async fn renew(&self, session: &mut Session, notes: &Notes, contract: &Contract, mode: DeleteMode) -> Result<()> {
        let query = rows_of(&self.names, contract, mode);
        self.make(session, notes, &contract.table, &query, Some(&self.topology)).await
    }

    /// Makes a view unless it was made from the same; what is refused is said.
    async fn make(
        &self,
        session: &mut Session,
        notes: &Notes,
        view: &str,
        query: &str,
        topology: Option<&str>,
    ) -> Result<()> {
        let statement = made(&self.views, view, query);
        let note = Note::of(topology, &statement);
        if notes.get(&view.to_ascii_lowercase()).and_then(Option::as_ref) == Some(&note) {
            return Ok(());
        }
        let (there, limit) = (notes.contains_key(&view.to_ascii_lowercase()), self.sessions.place.limit);
        let bounded = limit > PATIENCE;
        if bounded {
            session.run(&timeout(PATIENCE), None).await?;
        }
        let made = self.try_make(session, there, view, query, &note).await;
        let waited = made.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::WarehouseLimit(_)));
        let made = match made {
            Err(error) if waited || error.disposition() != Disposition::Retry => {
                let views = &self.views;
                let help = if waited { "the next start tries it again; to do it now" } else { "to do it" };
                tracing::warn!("make the view {views}.{view}: {error}; loads go on without it; {help}: {statement}");
                Ok(())
            }
            made => made,
        };
        if bounded && made.is_ok() {
            session.run(&timeout(limit), None).await?;
        }
        made
    }

    async fn try_make(&self, session: &mut Session, there: bool, view: &str, query: &str, note: &Note) -> Result<()> {
        let statements = [made(&self.views, view, query), self.comment(view, note)];
        let mut made = run_all(session, view, &statements).await;
        for _ in 0..DOUBTS {
            if made.as_ref().is_err_and(is_doubtful) {
                made = run_all(session, view, &statements).await;
            }
        }
        match made {
            Err(error) if there && error.disposition() != Disposition::Retry => {
                self.make_anew(session, view, query, note).await
            }
            made => made,
        }
    }

    fn comment(&self, view: &str, note: &Note) -> String {
        format!("COMMENT ON VIEW {} IS {}", self.view(view), text(&note.text()))
    }

    fn view(&self, name: &str) -> String {
        format!("{}.{}", quote(&self.views), quote(name))
    }

    /// Puts another view in the place of one, with what was granted on it: a view can be replaced only by one with the same
    /// columns. The old one goes when it has lost its name: who waits for a view that is dropped in the same transaction as the
    /// new one comes finds neither (<https://github.com/dbt-labs/dbt-core/issues/3112>). What a crash leaves goes the next time.
    async fn make_anew(&self, session: &mut Session, view: &str, query: &str, note: &Note) -> Result<()> {
        let (of, next, last) = (self.view(view), aside(NEXT_PREFIX, view), aside(LAST_PREFIX, view));
        let grants = match self.grants(session, view, &self.view(&next)).await {
            Err(error) if error.disposition() == Disposition::Retry => return Err(error),
            grants => grants,
        };
        let gone = |name: &str| format!("DROP VIEW IF EXISTS {}", self.view(name));
        let anew = [gone(&next), gone(&last), made(&self.views, &next, query), self.comment(&next, note)];
        run_all(session, view, &anew).await?;
        run_all(session, view, grants.as_ref().map_or(&[][..], Vec::as_slice)).await?;
        let renamed = [
            "BEGIN".to_owned(),
            format!("ALTER TABLE {of} RENAME TO {}", quote(&last)),
            format!("ALTER TABLE {} RENAME TO {}", self.view(&next), quote(view)),
            "COMMIT".to_owned(),
        ];
        if let Err(error) = run_all(session, view, &renamed).await {
            // When the session has gone, so has the transaction.
            let _gone = session.run("ROLLBACK", None).await;
            return Err(error);
        }
        if let Err(error) = session.run(&gone(&last), Some(view)).await {
            tracing::info!("{}: {error}; it is dropped when the view is next made anew", gone(&last));
        }
        self.tell_made_anew(view, &grants);
        Ok(())
    }

    fn tell_made_anew(&self, view: &str, grants: &Result<Vec<String>>) {
        let views = &self.views;
        let help = format!(
            "rights that others gave must be given again; ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT ON TABLES TO … gives \
             them for good",
            quote(views)
        );
        match grants {
            Ok(grants) => tracing::info!(
                "the view {views}.{view} has other columns: made anew, with {} grants; {help}",
                grants.len()
            ),
            Err(error) => {
                tracing::warn!("the view {views}.{view} has other columns: made anew; read its grants: {error}; {help}")
            }
        }
    }

    /// What gives again what was granted on a view, as far as the user may see it.
    async fn grants(&self, session: &mut Session, view: &str, of: &str) -> Result<Vec<String>> {
        let statement = format!(
            "SELECT privilege_type, identity_type, identity_name, admin_option FROM svv_relation_privileges \
             WHERE namespace_name = {} AND relation_name = {} AND identity_name <> current_user",
            literal(&self.views.to_ascii_lowercase()),
            literal(&view.to_ascii_lowercase())
        );
        let grant = |row: Vec<Option<String>>| {
            let [Some(right), Some(kind), Some(name), admin] = <[Option<String>; 4]>::try_from(row).ok()? else {
                return None;
            };
            let to = match kind.trim().to_ascii_lowercase().as_str() {
                "public" => "PUBLIC".to_owned(),
                "role" => format!("ROLE {}", quote(&name)),
                "group" => format!("GROUP {}", quote(&name)),
                _ => quote(&name),
            };
            let pass_on = if admin.as_deref() == Some("t") { " WITH GRANT OPTION" } else { "" };
            Some(format!("GRANT {} ON {of} TO {to}{pass_on}", right.trim()))
        };
        let rows = session.run(&statement, None).await?.rows;
        Ok(rows.into_iter().filter_map(grant).collect())
    }
}

/// The name of a view that stands aside.
fn aside(prefix: &str, view: &str) -> String {
    let readable: String = readable(view).chars().take(READABLE).collect();
    format!("{prefix}{readable}_{:08x}", xxh3_64(view.to_ascii_lowercase().as_bytes()) as u32)
}

async fn run_all(session: &mut Session, view: &str, statements: &[String]) -> Result<()> {
    for statement in statements {
        session.run(statement, Some(view)).await?;
    }
    Ok(())
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

    #[test]
    fn a_comment_says_whose_a_view_is() {
        for topology in [Some("shop [1]"), None] {
            let note = Note::of(topology, "SELECT 1");
            assert_eq!(Note::read(&note.text()), Some(note));
        }
        assert_eq!(Note::read("made by hand"), None);
    }
}
