//! Statements in the log, told apart.

use super::alter::{Alteration, index_dropped, key_dropped, unique_index};
use super::columns::{Ground, charset_option};
use super::lexer::{Mode, Word};
use super::scope::Scope;
use super::words::Words;

/// What a statement does, as far as it matters to who reads the rows in a log.
#[derive(Debug, Clone)]
pub enum Statement {
    Begin,
    End,
    /// Changes that stand in the log already are taken back.
    RollbackTo,
    /// In two phases.
    Xa,
    /// Changes data, and its rows are not in the log.
    Data {
        kind: &'static str,
        /// The databases of the tables and functions that it names; none: that cannot be told. What these fire in turn
        /// (triggers, foreign keys) may be anywhere.
        databases: Vec<String>,
    },
    /// Changes tables: see [`History::apply`](super::History::apply).
    Ddl(Ddl),
    /// Nothing that concerns rows.
    Other,
}

/// A statement that changes tables.
#[derive(Debug, Clone)]
pub struct Ddl {
    pub(super) mode: Mode,
    pub(super) change: Change,
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Create {
        table: String,
        database: String,
        only_if_new: bool,
        replace: bool,
        body: Words,
    },
    Alter {
        table: String,
        database: String,
        clauses: Words,
    },
    Index {
        table: String,
        alteration: Box<Alteration>,
    },
    /// One after the other.
    Rename(Vec<(String, String)>),
    Drop(Vec<String>),
    Truncate(Vec<String>),
    DropDatabase(String),
    /// What its tables have that name no character set; `None`: what the server has.
    Charset {
        database: String,
        charset: Option<String>,
    },
    /// It cannot be taken apart.
    Lost(String),
}

impl Statement {
    /// Reads a statement, which ran in `database`.
    pub fn read(text: &str, database: &str, mode: Mode, scope: &Scope) -> Self {
        // Most of them.
        match text {
            "BEGIN" => return Self::Begin,
            "COMMIT" => return Self::End,
            _ => {}
        }
        let Some(mut words) = Words::of(text, mode) else { return lost(text) };
        let first = verb(&mut words);
        let change = match first.as_str() {
            "BEGIN" | "START" => return Self::Begin,
            "COMMIT" => return Self::End,
            "ROLLBACK" if words.is("TO") || words.rest().iter().any(|word| word.is("SAVEPOINT")) => {
                return Self::RollbackTo;
            }
            "ROLLBACK" => return Self::End,
            "XA" => return Self::Xa,
            "TRUNCATE" => {
                words.take("TABLE");
                Some(Change::Truncate(words.names(scope, database)))
            }
            "DROP" => drop(&mut words, database, scope),
            "CREATE" => match create(&mut words, database, scope) {
                Some(Change::Create { table, body, .. }) if !scope.follows(&table) && is_from_query(&body) => {
                    // With rows in the log it would name columns.
                    let database = table.split_once('.').map_or(database, |(database, _)| database);
                    return Self::Data { kind: "CREATE TABLE … SELECT", databases: vec![database.to_owned()] };
                }
                change => change,
            },
            "ALTER" => alter(&mut words, database, scope),
            "RENAME" => rename(&mut words, database, scope),
            _ => return data(&first, &words, database),
        };
        change.map_or(Self::Other, |change| Self::Ddl(Ddl { mode, change }))
    }
}

/// The word that says what a statement does. MariaDB's `ANALYZE [FORMAT = …] statement` and `SET STATEMENT … FOR statement`
/// run another one, and stand in the log as they are.
fn verb(words: &mut Words) -> String {
    let next =
        |words: &mut Words| words.next().and_then(|word| word.name().map(str::to_ascii_uppercase)).unwrap_or_default();
    let first = next(words);
    match first.as_str() {
        "ANALYZE" => {
            if words.take("FORMAT") {
                words.take_sign('=');
                words.next();
            }
            // That it looks at tables changes nothing.
            if words.is_any(&["TABLE", "TABLES", "LOCAL", "NO_WRITE_TO_BINLOG"]) { first } else { next(words) }
        }
        "SET" if words.take("STATEMENT") && words.skip_past("FOR") => verb(words),
        _ => first,
    }
}

/// The kinds of statements that change data, and the words before which their tables stand. A stored function that changed
/// data stands in the log as `SELECT f()`, however it was called.
const DATA: [(&str, &str, &[&str]); 9] = [
    ("INSERT", "INSERT", &["VALUES", "VALUE", "SELECT", "SET", "("]),
    ("REPLACE", "REPLACE", &["VALUES", "VALUE", "SELECT", "SET", "("]),
    ("UPDATE", "UPDATE", &["SET"]),
    ("DELETE", "DELETE", &["WHERE", "ORDER", "LIMIT"]),
    ("LOAD", "LOAD DATA", &["FIELDS", "COLUMNS", "LINES", "CHARACTER", "PARTITION", "SET", "("]),
    ("CALL", "CALL", &["("]),
    ("SELECT", "SELECT", &["("]),
    ("DO", "DO", &["("]),
    ("WITH", "WITH", &[]),
];

/// A statement that changes data. A name without a database stands for one in the session's.
fn data(first: &str, words: &Words, database: &str) -> Statement {
    let Some((_, kind, ends)) = DATA.into_iter().find(|(word, ..)| *word == first) else { return Statement::Other };
    let is_end = |word: &&Word| ends.iter().any(|end| word.is(end) || *end == "(" && word.is_sign('('));
    let rest = words.rest();
    let head = &rest[..rest.iter().position(|word| is_end(&word)).unwrap_or(rest.len())];
    let before_dot = head.windows(2).filter(|pair| pair[1].is_sign('.')).filter_map(|pair| pair[0].name());
    let mut databases: Vec<String> = before_dot.map(str::to_owned).collect();
    let several = |word: &Word| word.is_sign(',') || ["JOIN", "STRAIGHT_JOIN", "USING"].iter().any(|key| word.is(key));
    // A function's own statements name tables of the session's database no more than those of its own.
    let one_name = kind != "WITH" && databases.len() == 1 && !head.iter().any(several);
    if !one_name {
        databases.push(database.to_owned());
    }
    Statement::Data { kind, databases }
}

/// Whether a table is made from what a query finds.
fn is_from_query(body: &Words) -> bool {
    let mut words = body.clone();
    if words.is("LIKE") {
        return false;
    }
    let _columns = words.parentheses();
    words.cut_at(&["PARTITION", "BY"]);
    words.rest().iter().any(|word| word.is("SELECT"))
}

/// A statement with a quote that is not closed: only what it begins with is sure.
fn lost(text: &str) -> Statement {
    let begins = text.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    let first = begins.to_ascii_uppercase();
    if ["CREATE", "ALTER", "DROP", "RENAME", "TRUNCATE"].contains(&first.as_str()) {
        return Statement::Ddl(Ddl { mode: Mode::default(), change: Change::Lost(text.to_owned()) });
    }
    let Some((_, kind, _)) = DATA.into_iter().find(|(word, ..)| *word == first) else { return Statement::Other };
    Statement::Data { kind, databases: Vec::new() }
}

fn drop(words: &mut Words, database: &str, scope: &Scope) -> Option<Change> {
    if words.take("DATABASE") || words.take("SCHEMA") {
        words.skip_if_exists();
        return words.identifier().map(Change::DropDatabase);
    }
    if words.take("INDEX") {
        words.skip_if_exists();
        let key = words.identifier()?.eq_ignore_ascii_case("PRIMARY");
        words.take("ON");
        let table = words.name(scope, database)?;
        let alteration = Box::new(if key { key_dropped() } else { index_dropped() });
        return Some(Change::Index { table, alteration });
    }
    // Temporary tables hide others and are nobody's.
    if !words.take("TABLE") && !words.take("TABLES") {
        return None;
    }
    words.skip_if_exists();
    words.skip_wait();
    Some(Change::Drop(words.names(scope, database)))
}

fn create(words: &mut Words, database: &str, scope: &Scope) -> Option<Change> {
    let replace = words.take("OR") && words.take("REPLACE");
    if words.take("DATABASE") || words.take("SCHEMA") {
        words.skip_if_exists();
        let database = words.identifier()?;
        return Some(Change::Charset { database, charset: charset_option(words.rest()) });
    }
    if words.take("TABLE") {
        let only_if_new = words.skip_if_exists();
        let table = words.name(scope, database)?;
        let (database, body) = (database.to_owned(), words.clone());
        return Some(Change::Create { table, database, only_if_new, replace, body });
    }
    // `CREATE [UNIQUE | FULLTEXT | SPATIAL] INDEX name … ON table (…)`
    let mut head = words.clone();
    let _kind = ["ONLINE", "OFFLINE", "FULLTEXT", "SPATIAL", "VECTOR"].iter().any(|kind| head.take(kind));
    let unique = head.take("UNIQUE");
    if !head.take("INDEX") {
        return None;
    }
    while !head.take("ON") {
        head.next()?;
    }
    let table = head.name(scope, database)?;
    let alteration = if unique { unique_index(&mut head) } else { Alteration::default() };
    Some(Change::Index { table, alteration: Box::new(alteration) })
}

fn alter(words: &mut Words, database: &str, scope: &Scope) -> Option<Change> {
    while words.take("ONLINE") || words.take("OFFLINE") || words.take("IGNORE") {}
    if words.take("DATABASE") || words.take("SCHEMA") {
        // Without a name it is the session's.
        let options = ["DEFAULT", "CHARACTER", "CHARSET", "COLLATE", "COMMENT", "ENCRYPTION", "READ"];
        let named = if words.is_any(&options) { None } else { words.identifier() };
        let database = named.unwrap_or_else(|| database.to_owned());
        let charset = charset_option(words.rest())?;
        let charset = Some(charset).filter(|charset| charset != "default");
        return Some(Change::Charset { database, charset });
    }
    if !words.take("TABLE") {
        return None;
    }
    words.skip_if_exists();
    let table = words.name(scope, database)?;
    words.skip_wait();
    let (database, clauses) = (database.to_owned(), words.clone());
    Some(Change::Alter { table, database, clauses })
}

fn rename(words: &mut Words, database: &str, scope: &Scope) -> Option<Change> {
    if !words.take("TABLE") && !words.take("TABLES") {
        return None;
    }
    words.skip_if_exists();
    let mut pairs = Vec::new();
    while let Some(from) = words.name(scope, database) {
        words.skip_wait();
        words.take("TO");
        let Some(to) = words.name(scope, database) else { break };
        pairs.push((from, to));
        if !words.take_sign(',') {
            break;
        }
    }
    Some(Change::Rename(pairs))
}

impl Ddl {
    /// Whether its words would be the same about a temporary table: those of a drop and of a rename would not.
    pub fn may_be_temporary(&self) -> bool {
        matches!(self.change, Change::Alter { .. } | Change::Index { .. } | Change::Truncate(_))
    }

    /// What columns take from a table of that character set.
    pub(super) fn ground<'a>(&self, charset: &'a str, plain_timestamps: bool) -> Ground<'a> {
        Ground { charset, mode: self.mode, plain_timestamps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In few words.
    fn shown(text: &str) -> String {
        let scope = Scope::new(&["shop.t".to_owned()], 0);
        match Statement::read(text, "shop", Mode::default(), &scope) {
            Statement::Data { kind, databases } => format!("{kind} {}", databases.join(",")),
            Statement::Ddl(Ddl { change, .. }) => match change {
                Change::Create { table, replace, .. } => format!("create {table} {replace}"),
                Change::Alter { table, .. } => format!("alter {table}"),
                Change::Index { table, .. } => format!("index {table}"),
                Change::Rename(pairs) => format!("rename {pairs:?}"),
                Change::Drop(tables) => format!("drop {tables:?}"),
                Change::Truncate(tables) => format!("truncate {tables:?}"),
                Change::DropDatabase(database) => format!("drop database {database}"),
                Change::Charset { database, charset } => format!("charset {database} {charset:?}"),
                Change::Lost(_) => "lost".to_owned(),
            },
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn statements_are_told_apart() {
        let cases = [
            ("BEGIN", "Begin"),
            ("COMMIT /* implicit, from Xid_log_event */", "End"),
            ("ROLLBACK TO SAVEPOINT a", "RollbackTo"),
            ("XA START X'61',X'',1", "Xa"),
            ("/* app */ insert into t values (1)", "INSERT shop"),
            ("REPLACE INTO `percona`.`checksums` (a) SELECT x FROM shop.t", "REPLACE percona"),
            ("UPDATE x.t, u SET a = 1", "UPDATE x,shop"),
            ("WITH c AS (SELECT 1) DELETE FROM x.t WHERE a IN (SELECT * FROM c)", "WITH x,shop"),
            ("UPDATE LOW_PRIORITY `x`.t AS a SET a.b = shop.f()", "UPDATE x"),
            ("DELETE FROM x.t", "DELETE x"),
            ("DELETE a FROM x.t AS a JOIN u USING (id)", "DELETE x,shop"),
            (
                "INSERT INTO mysql.rds_heartbeat2(id, value) values (1,1) ON DUPLICATE KEY UPDATE value = 1",
                "INSERT mysql",
            ),
            ("INSERT INTO other.t VALUES ('unfinished", "INSERT "),
            ("LOAD DATA LOCAL INFILE 'a.b' IGNORE INTO TABLE `x`.`t` FIELDS TERMINATED BY ',' (a, b)", "LOAD DATA x"),
            ("SELECT `shop`.`f`(1)", "SELECT shop"),
            ("SELECT `x`.`f`(y.z)", "SELECT x"),
            ("select f()", "SELECT shop"),
            ("DO `x`.`f`(_utf8mb4'a' COLLATE 'utf8mb4_bin')", "DO x"),
            ("CALL p(1)", "CALL shop"),
            ("ANALYZE UPDATE t SET a = 1", "UPDATE shop"),
            ("ANALYZE FORMAT=JSON DELETE FROM x.t", "DELETE x"),
            ("ANALYZE TABLE t", "Other"),
            ("SET STATEMENT max_statement_time = 1 FOR INSERT INTO x.t VALUES (1)", "INSERT x"),
            ("SET STATEMENT a = (SELECT 1 FOR UPDATE), b = 2 FOR ALTER TABLE t ADD c int", "alter shop.t"),
            ("SET STATEMENT a = 1 FOR ANALYZE UPDATE t SET a = 1", "UPDATE shop"),
            ("SET PASSWORD FOR me = 'x'", "Other"),
            ("CREATE TABLE x.t (a int) SELECT shop.f() AS a", "CREATE TABLE … SELECT x"),
            ("CREATE TABLE u AS SELECT 1", "CREATE TABLE … SELECT shop"),
            ("CREATE TABLE t AS SELECT 1", "create shop.t false"),
            ("CREATE TABLE x.t (`select` int) COMMENT 'SELECT' PARTITION BY KEY (a)", "create x.t false"),
            (
                "TRUNCATE TABLE `x`.`mem` /* generated by server, implicitly emptying in-memory table */",
                r#"truncate ["x.mem"]"#,
            ),
            ("TRUNCATE `a b`.`c``d`", r#"truncate ["a b.c`d"]"#),
            ("DROP TABLE IF EXISTS `t`, x.u /* generated by server */", r#"drop ["shop.t", "x.u"]"#),
            ("drop database if exists `shop`", "drop database shop"),
            ("DROP TEMPORARY TABLE IF EXISTS `t`", "Other"),
            ("CREATE TEMPORARY TABLE t (a int)", "Other"),
            ("CREATE TABLE IF NOT EXISTS t (a int default '1')", "create shop.t false"),
            ("CREATE OR REPLACE TABLE t LIKE u", "create shop.t true"),
            ("CREATE UNIQUE INDEX i USING BTREE ON t (a)", "index shop.t"),
            ("DROP INDEX `PRIMARY` ON x.t", "index x.t"),
            ("ALTER DATABASE CHARACTER SET latin1", r#"charset shop Some("latin1")"#),
            ("ALTER DATABASE x COLLATE = utf8_bin", r#"charset x Some("utf8mb3")"#),
            ("CREATE DATABASE x", "charset x None"),
            ("ALTER ONLINE TABLE IF EXISTS x.t WAIT 5 ADD a int", "alter x.t"),
            ("GRANT SELECT ON t TO me", "Other"),
            ("ALTER TABLE t COMMENT 'unfinished", "lost"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
        let swap = "rename /* gh-ost */ table `shop`.`t` to `shop`.`_t_del`, `shop`.`_t_gho` to `shop`.`t`";
        assert_eq!(shown(swap), r#"rename [("shop.t", "shop._t_del"), ("shop._t_gho", "shop.t")]"#);
        assert_eq!(shown("RENAME TABLE a WAIT 3 TO x.b"), r#"rename [("shop.a", "x.b")]"#);
    }
}
