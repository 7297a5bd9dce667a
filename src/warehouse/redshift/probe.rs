//! Whether a cluster has what a load takes: who we are there, what we may do, how it is set up.

use std::sync::Arc;

use super::conformance::prove_transactions;
use super::session::Session;
use super::sql::STATE_PREFIX;
use super::{Redshift, text};
use crate::config::RedshiftWarehouse;
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::finding::{Findings, Level};
use crate::warehouse::Staging;
use crate::warehouse::names::{literal, quote};

/// Looks at the cluster, and tries out what loads rely on. `tables`: those of the topology. Nothing that it makes stays.
pub async fn probe(
    config: &RedshiftWarehouse,
    topology: &str,
    staging: Arc<dyn Staging>,
    tables: &[&str],
    found: &mut Findings,
) {
    let looked = async {
        let warehouse = Redshift::new(config, topology, Some(staging))?;
        let mut lease = warehouse.sessions.lease().await?;
        if warehouse.sessions.through_api() {
            prove_transactions(&mut lease.session).await?;
        }
        warehouse.look(&mut lease.session, tables, found).await?;
        warehouse.conform(&mut lease.session, found).await
    };
    if let Err(error) = looked.await {
        found.failure(&error);
    }
}

/// Why nothing is loaded into a database that takes `a` and `A` for the same.
const FOLDS: &str = "the database does not tell upper from lower case (COLLATE CASE_INSENSITIVE): keys that differ in \
                     nothing else would overwrite one another";
/// What to do about it.
const FOLDS_HELP: &str = "load into another one: CREATE DATABASE … COLLATE CASE_SENSITIVE, which is the default";

/// Whether texts are compared without regard to case in this database:
/// <https://docs.aws.amazon.com/redshift/latest/dg/r_DB_COLLATION.html>.
async fn folds_case(session: &mut Session) -> Result<bool> {
    match session.run("SELECT db_collation()", None).await {
        Ok(answer) => Ok(answer.single().is_some_and(|name| name.trim().eq_ignore_ascii_case("case_insensitive"))),
        // A cluster that knows no collations has none.
        Err(error) if error.to_string().contains("(42883)") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses a database in which keys would overwrite one another.
pub(super) async fn refuse_folded_case(session: &mut Session) -> Result<()> {
    match folds_case(session).await? {
        true => Err(Error::new(ErrorKind::WarehouseRefused, FOLDS).help(FOLDS_HELP)),
        false => Ok(()),
    }
}

impl Redshift {
    async fn look(&self, session: &mut Session, tables: &[&str], found: &mut Findings) -> Result<()> {
        let place = &self.sessions.place;
        let user = self.value(session, "SELECT current_user").await?.unwrap_or_default();
        let tls = if place.is_secure { "it has proved who it is" } else { "without TLS" };
        found.good(format!("{place} lets {user} in; {tls}"));
        if !place.is_secure {
            let help = match self.sessions.through_api() {
                true => Some("let `warehouse.auth.endpoint` begin with https://, or leave it out".to_owned()),
                false => Some("leave `?sslmode=disable` out of the URL".to_owned()),
            };
            found.add(Level::Warning, "passwords and rows go over the network as they are", help);
        }
        let version = self.value(session, "SELECT version()").await?.unwrap_or_default();
        let version = version.split_once("Redshift ").map_or(version.as_str(), |(_, version)| version);
        found.add(Level::Note, format!("version {version}"), None);
        self.isolation(session, found).await?;
        if folds_case(session).await? {
            found.mistake(FOLDS, FOLDS_HELP);
        }
        self.identifiers(session, found).await?;
        self.rights(session, found).await?;
        self.owners(session, tables, found).await?;
        let states = session.run(&self.names.tables_like(STATE_PREFIX), None).await?.rows;
        let states: Vec<String> = states.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        let ours = [(String::new(), tables.iter().map(|table| (*table).to_owned()).collect())].into();
        for twice in self.loaded_by_others(session, &states, &ours).await? {
            let (what, help) = twice.words(self);
            found.mistake(what, help);
        }
        let loaded = !states.is_empty();
        found.good(if loaded { "has been loaded before" } else { "nothing has been loaded yet" });
        Ok(())
    }

    async fn value(&self, session: &mut Session, statement: &str) -> Result<Option<String>> {
        let answer = session.run(statement, None).await?;
        Ok(answer.single().map(|value| value.trim().to_owned()))
    }

    async fn isolation(&self, session: &mut Session, found: &mut Findings) -> Result<()> {
        let statement = "SELECT isolation_level FROM stv_db_isolation_level WHERE trim(db_name) = current_database()";
        // Serverless does not show every table of a cluster.
        let level = match self.value(session, statement).await {
            Err(error) if error.disposition() == Disposition::Retry => return Err(error),
            level => level.ok().flatten().unwrap_or_else(|| "not shown".to_owned()),
        };
        found.add(Level::Note, format!("isolation of transactions: {level}; loads are made for both"), None);
        Ok(())
    }

    async fn identifiers(&self, session: &mut Session, found: &mut Findings) -> Result<()> {
        let sensitive = self.value(session, "SHOW enable_case_sensitive_identifier").await?;
        if sensitive.is_some_and(|value| ["on", "true", "1"].contains(&value.as_str())) {
            let what =
                "names keep their case (enable_case_sensitive_identifier): tables with upper case are not found again";
            let help = "ALTER USER … SET enable_case_sensitive_identifier TO false; or use lower case only";
            found.mistake(what, help);
        }
        Ok(())
    }

    async fn rights(&self, session: &mut Session, found: &mut Findings) -> Result<()> {
        self.schema_rights(session, self.names.schema(), None, found).await?;
        let without = "people get no views, loads go on without them";
        self.schema_rights(session, &self.views, Some(without), found).await?;
        if !self.is_true(session, "SELECT has_database_privilege(current_database(), 'TEMP')").await? {
            found.mistake("the user may not make temporary tables", "GRANT TEMP ON DATABASE … TO the user");
        }
        self.table_info(session, found).await?;
        self.copy_role(session, found).await
    }

    /// Whether the user may make things in a schema, or the schema. `without`: what happens if not, where loads go on.
    async fn schema_rights(
        &self,
        session: &mut Session,
        schema: &str,
        without: Option<&str>,
        found: &mut Findings,
    ) -> Result<()> {
        let mut lacks = |what: String, help: String| match without {
            None => found.mistake(what, help),
            Some(without) => found.add(Level::Warning, format!("{what}: {without}"), Some(help)),
        };
        let name = text(&schema.to_ascii_lowercase());
        if self.value(session, &format!("SELECT 1 FROM pg_namespace WHERE nspname = {name}")).await?.is_some() {
            for right in ["USAGE", "CREATE"] {
                if !self.is_true(session, &format!("SELECT has_schema_privilege({name}, '{right}')")).await? {
                    let grant = format!("GRANT {right} ON SCHEMA {} TO the user", quote(schema));
                    lacks(format!("the user lacks {right} on schema {schema}"), grant);
                }
            }
        } else if self.is_true(session, "SELECT has_database_privilege(current_database(), 'CREATE')").await? {
            found.add(Level::Note, format!("there is no schema {schema} yet: it is made at the start"), None);
        } else {
            let help = format!("CREATE SCHEMA {} AUTHORIZATION the user", quote(schema));
            lacks(format!("there is no schema {schema}, and the user may not make it"), help);
        }
        Ok(())
    }

    /// Whether loads can see how tables lie.
    async fn table_info(&self, session: &mut Session, found: &mut Findings) -> Result<()> {
        match session.run("SELECT 1 FROM svv_table_info LIMIT 1", None).await {
            Err(error) if error.disposition() == Disposition::Retry => Err(error),
            Err(_) => {
                let help = Some("GRANT SELECT ON svv_table_info TO the user".to_owned());
                found.add(Level::Note, "nobody is told when a table lies otherwise than the topology says", help);
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Whether the user may have COPY take on its role. What older clusters cannot say is no mistake: COPY is tried next.
    async fn copy_role(&self, session: &mut Session, found: &mut Findings) -> Result<()> {
        let Some(role) = self.iam_role.split(',').next().filter(|role| role.starts_with("arn:")) else { return Ok(()) };
        let asked = self.value(session, &format!("SELECT has_assumerole_privilege({}, 'copy')", text(role))).await;
        match asked {
            Err(error) if error.disposition() == Disposition::Retry => return Err(error),
            Ok(Some(may)) if may == "f" => {
                let grant = format!("GRANT ASSUMEROLE ON {} TO the user FOR COPY", literal(role));
                found.mistake(format!("the user may not have COPY take on the role {role}"), grant);
            }
            _ => {}
        }
        Ok(())
    }

    async fn is_true(&self, session: &mut Session, statement: &str) -> Result<bool> {
        Ok(self.value(session, statement).await?.as_deref() == Some("t"))
    }

    /// Tables of the topology that are there and belong to somebody else: their columns cannot be added.
    async fn owners(&self, session: &mut Session, tables: &[&str], found: &mut Findings) -> Result<()> {
        if tables.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = tables.iter().map(|table| literal(&table.to_ascii_lowercase())).collect();
        let statement = format!(
            "SELECT tablename, tableowner FROM pg_tables WHERE schemaname = {} AND tableowner <> current_user \
             AND tablename IN ({})",
            text(&self.names.schema().to_ascii_lowercase()),
            names.join(", ")
        );
        for row in session.run(&statement, None).await?.rows {
            if let [Some(table), Some(owner)] = row.as_slice() {
                let what = format!("table {table} belongs to {owner}: no column can be added to it");
                found.mistake(what, format!("ALTER TABLE {} OWNER TO the user", self.names.of(table)));
            }
        }
        Ok(())
    }
}
