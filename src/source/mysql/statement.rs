//! Statements in the log: the borders of transactions, what they do to captured tables, and data without rows.

use super::catalog;
use super::stream::Stream;
use super::tables::next;
use crate::config::OnFilledColumn;
use crate::error::Result;
use crate::wire::binlog::{Query, describe_key, truncate_record};

/// What a statement does, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Statement {
    Begin,
    End,
    /// Changes that stand in the log already are taken back.
    RollbackTo,
    /// In two phases.
    Xa,
    /// Changes data, and its rows are not in the log; of what kind, and in which databases.
    Data(&'static str, Vec<String>),
    Truncate(Vec<String>),
    Drop(Vec<String>),
    DropDatabase(String),
    Create(String),
    /// A table was altered; its other name afterwards, and whether rows got values without events.
    Alter {
        table: String,
        to: Option<String>,
        fills: bool,
    },
    Rename(Vec<(String, String)>),
    /// Nothing that concerns rows.
    Other,
}

impl Stream {
    pub(super) async fn query(&mut self, query: &Query<'_>, begins: u64) -> Result<()> {
        let alone = self.is_alone();
        let statement = read(&query.text, &query.database);
        let known = self.open.as_ref().is_some_and(|open| open.known);
        match statement {
            Statement::Begin => {
                if let Some(open) = &mut self.open {
                    open.begun = true;
                }
                return Ok(());
            }
            Statement::End => {
                self.commit();
                return Ok(());
            }
            _ if known => {}
            Statement::RollbackTo => return Err(self.refused_statement("ROLLBACK TO SAVEPOINT")),
            Statement::Xa => return Err(self.refused_statement("XA")),
            Statement::Data(kind, databases) => {
                if databases.iter().any(|database| self.reads_from(database)) {
                    return Err(self.refused_statement(kind));
                }
            }
            Statement::Other => {}
            Statement::Truncate(tables) => {
                for table in tables {
                    self.truncate(&table, begins).await?;
                }
            }
            Statement::Drop(tables) => tables.iter().for_each(|table| self.gone(table)),
            Statement::DropDatabase(database) => {
                let inside = |table: &&String| table.split_once('.').is_some_and(|(of, _)| of == database);
                let tables: Vec<String> = self.job.captured.iter().filter(inside).cloned().collect();
                tables.iter().for_each(|table| self.gone(table));
            }
            Statement::Create(table) => self.changed(&table),
            Statement::Alter { table, to, fills } => self.altered(&table, to, fills),
            Statement::Rename(pairs) => self.renamed(&pairs),
        }
        if alone {
            self.commit();
        }
        Ok(())
    }

    /// Whether a table of that database is captured.
    fn reads_from(&self, database: &str) -> bool {
        self.job.captured.iter().any(|table| table.split_once('.').is_some_and(|(of, _)| of == database))
    }

    /// Whether nobody reads that table.
    fn is_foreign(&self, table: &str) -> bool {
        !self.job.captured.iter().any(|captured| captured == table)
    }

    /// What was looked up of the table holds no longer.
    fn changed(&mut self, table: &str) {
        self.catalog.remove(table);
        self.rounds.forget(table);
    }

    async fn truncate(&mut self, table: &str, begins: u64) -> Result<()> {
        if self.is_foreign(table) || !self.counts(table) {
            return Ok(());
        }
        let doing = || format!("source {}: look up the columns of {table}", self.job.name);
        let found = catalog::table(&mut self.side, self.job.server.flavour, table).await;
        let found = found.map_err(|trouble| trouble.error(doing()))?;
        let id = self.rounds.next_id();
        let Ok(shape) = catalog::read_shape(id, table, &found) else {
            self.gone(table);
            return Ok(());
        };
        let major = super::place::file_number(&self.file);
        let Some(open) = &mut self.open else { return Ok(()) };
        let time_us = open.time_us;
        self.records.push_within(major, next(open, begins), time_us, Some(&describe_key(&shape)), None);
        self.records.push_within(major, next(open, begins), time_us, None, Some(&truncate_record(id)));
        Ok(())
    }

    /// A captured table is not there any more; if one of its name comes, it is read anew.
    fn gone(&mut self, table: &str) {
        if self.is_foreign(table) {
            return;
        }
        tracing::warn!(
            source = &*self.job.name,
            table,
            "the table was dropped or renamed at the source; its rows stay in the warehouse until there is one of its name \
             again, which is then read anew"
        );
        self.changed(table);
        self.place.read_again(table.to_owned());
    }

    fn altered(&mut self, table: &str, to: Option<String>, fills: bool) {
        if let Some(to) = to.filter(|to| to != table) {
            self.renamed(&[(table.to_owned(), to)]);
            return;
        }
        if self.is_foreign(table) {
            return;
        }
        self.changed(table);
        if !self.job.server.names_columns {
            // What the columns are from here on, the log does not say.
            self.place.read_again(table.to_owned());
            return;
        }
        if fills && self.counts(table) {
            let again = self.job.snapshot.on_filled_column == OnFilledColumn::ReadAgain;
            filled(&self.job.name, table, again);
            if again {
                self.place.read_again(table.to_owned());
            }
        }
    }

    /// Names changed, one after the other. A table that takes the place of a captured one has other rows, unless it is the
    /// copy that an online schema change has made of it.
    fn renamed(&mut self, pairs: &[(String, String)]) {
        for (from, to) in pairs {
            if !self.is_foreign(from) && !pairs.iter().any(|(_, other)| other == from) {
                self.gone(from);
            }
            if self.is_foreign(to) {
                continue;
            }
            self.changed(to);
            if is_copy(from, to) && self.job.server.names_columns {
                let source = &*self.job.name;
                tracing::info!(
                    source,
                    table = to,
                    "an online schema change put {from} in the table's place; going on with it"
                );
            } else {
                self.place.read_again(to.clone());
            }
        }
    }
}

/// Says that rows of a table have got values without events.
fn filled(source: &str, table: &str, again: bool) {
    let rest = if again {
        "the table is emptied and read again"
    } else {
        "those rows have null until they change; `snapshot: { on_filled_column: read_again }` reads them again"
    };
    tracing::warn!(source, table, "a change of its columns gives rows values without any event: {rest}");
}

/// The names that gh-ost and pt-online-schema-change give to the copy of a table.
fn is_copy(from: &str, to: &str) -> bool {
    let (Some((from_database, from)), Some((database, to))) = (from.split_once('.'), to.split_once('.')) else {
        return false;
    };
    let ghost = from == format!("_{to}_gho");
    let copied = from.trim_start_matches('_') == format!("{to}_new") && from.starts_with('_');
    from_database == database && (ghost || copied)
}

/// Words, names and signs of a statement; texts and comments are left out.
struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    fn next(&mut self) -> Option<String> {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(inner) = self.rest.strip_prefix("/*") {
                // What stands in `/*! … */` is run by the server.
                if let Some(run) = inner.strip_prefix('!').or_else(|| inner.strip_prefix("M!")) {
                    self.rest = run.trim_start_matches(|c: char| c.is_ascii_digit());
                } else {
                    self.rest = inner.split_once("*/").map_or("", |(_, rest)| rest);
                }
            } else if let Some(rest) = self.rest.strip_prefix("*/") {
                self.rest = rest;
            } else if self.rest.starts_with("-- ") || self.rest.starts_with('#') {
                self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
            } else {
                break;
            }
        }
        let first = self.rest.chars().next()?;
        if matches!(first, '`' | '"' | '\'') {
            return Some(self.quoted(first));
        }
        let length = if first.is_alphanumeric() || matches!(first, '_' | '$' | '@') {
            self.rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '$' | '@')).unwrap_or(self.rest.len())
        } else {
            first.len_utf8()
        };
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(word.to_owned())
    }

    /// A name in back ticks comes with one in front, so that it is no key word.
    fn quoted(&mut self, quote: char) -> String {
        let mut text = String::from(if quote == '\'' { "'" } else { "`" });
        let mut rest = self.rest[1..].chars();
        loop {
            match rest.next() {
                None => break,
                Some('\\') if quote != '`' => text.extend(rest.next()),
                Some(c) if c == quote => {
                    if rest.as_str().starts_with(quote) {
                        rest.next();
                        text.push(quote);
                    } else {
                        break;
                    }
                }
                Some(c) => text.push(c),
            }
        }
        self.rest = rest.as_str();
        text
    }
}

/// The statement's words, and a place among them.
struct Parser {
    words: Vec<String>,
    at: usize,
}

impl Parser {
    fn is(&self, word: &str) -> bool {
        self.words.get(self.at).is_some_and(|found| found.eq_ignore_ascii_case(word))
    }

    fn take(&mut self, word: &str) -> bool {
        let is = self.is(word);
        self.at += usize::from(is);
        is
    }

    fn skip_if_exists(&mut self) {
        if self.take("IF") {
            self.take("NOT");
            self.take("EXISTS");
        }
    }

    /// `[database.]table`
    fn name(&mut self, database: &str) -> Option<String> {
        let part = |word: &String| word.strip_prefix('`').unwrap_or(word).to_owned();
        let first = part(self.words.get(self.at)?);
        self.at += 1;
        if self.take(".") {
            let second = part(self.words.get(self.at)?);
            self.at += 1;
            return Some(format!("{first}.{second}"));
        }
        Some(format!("{database}.{first}"))
    }

    /// A statement that changes data, whose tables are named before one of the words in `ends`. A name without a database
    /// stands for one in the session's.
    fn data(&self, kind: &'static str, database: &str, ends: &[&str]) -> Statement {
        let is_end = |word: &String| ends.iter().any(|end| word.eq_ignore_ascii_case(end));
        let head = self.words.iter().position(is_end).unwrap_or(self.words.len());
        let words = &self.words[..head];
        let name = |word: &String| word.strip_prefix('`').unwrap_or(word).to_owned();
        let before_dot = words.windows(2).filter(|pair| pair[1] == ".").map(|pair| name(&pair[0]));
        let mut databases: Vec<String> = before_dot.collect();
        let one_table = matches!(kind, "INSERT" | "REPLACE") && !databases.is_empty();
        if !one_table {
            databases.push(database.to_owned());
        }
        Statement::Data(kind, databases)
    }

    fn names(&mut self, database: &str) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(name) = self.name(database) {
            names.push(name);
            if !self.take(",") {
                break;
            }
        }
        names
    }
}

/// Reads a statement.
fn read(text: &str, database: &str) -> Statement {
    let mut words = Words { rest: text };
    let mut parser = Parser { words: std::iter::from_fn(|| words.next()).collect(), at: 0 };
    let first = parser.words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
    parser.at = 1;
    match first.as_str() {
        "BEGIN" | "START" => Statement::Begin,
        "COMMIT" => Statement::End,
        "ROLLBACK" if parser.is("TO") || parser.words.iter().any(|word| word.eq_ignore_ascii_case("SAVEPOINT")) => {
            Statement::RollbackTo
        }
        "ROLLBACK" => Statement::End,
        "XA" => Statement::Xa,
        "INSERT" => parser.data("INSERT", database, &["VALUES", "VALUE", "SELECT", "SET", "("]),
        "REPLACE" => parser.data("REPLACE", database, &["VALUES", "VALUE", "SELECT", "SET", "("]),
        "UPDATE" => parser.data("UPDATE", database, &["SET"]),
        "DELETE" => parser.data("DELETE", database, &["WHERE", "ORDER", "LIMIT"]),
        "LOAD" => parser.data("LOAD DATA", database, &[]),
        "CALL" => parser.data("CALL", database, &["("]),
        "TRUNCATE" => {
            parser.take("TABLE");
            Statement::Truncate(parser.names(database))
        }
        "DROP" => drop_of(&mut parser, database),
        "CREATE" => create_of(&mut parser, database),
        "ALTER" => alter_of(&mut parser, database),
        "RENAME" => rename_of(&mut parser, database),
        _ => Statement::Other,
    }
}

fn drop_of(parser: &mut Parser, database: &str) -> Statement {
    if parser.take("DATABASE") || parser.take("SCHEMA") {
        parser.skip_if_exists();
        let name = parser.words.get(parser.at).map(|word| word.trim_start_matches('`').to_owned());
        return Statement::DropDatabase(name.unwrap_or_default());
    }
    // Temporary tables hide others and are nobody's.
    if !parser.take("TABLE") && !parser.take("TABLES") {
        return Statement::Other;
    }
    parser.skip_if_exists();
    Statement::Drop(parser.names(database))
}

fn create_of(parser: &mut Parser, database: &str) -> Statement {
    if parser.take("OR") {
        parser.take("REPLACE");
    }
    if !parser.take("TABLE") {
        return Statement::Other;
    }
    parser.skip_if_exists();
    parser.name(database).map_or(Statement::Other, Statement::Create)
}

fn alter_of(parser: &mut Parser, database: &str) -> Statement {
    while parser.take("ONLINE") || parser.take("IGNORE") {}
    if !parser.take("TABLE") {
        return Statement::Other;
    }
    parser.skip_if_exists();
    let Some(table) = parser.name(database) else { return Statement::Other };
    let mut to = None;
    let mut depth = 0;
    let fills = fills(&parser.words[parser.at..]);
    while parser.at < parser.words.len() {
        match parser.words[parser.at].as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        let renames = depth == 0 && parser.is("RENAME");
        parser.at += 1;
        if renames && !["COLUMN", "INDEX", "KEY"].iter().any(|what| parser.is(what)) {
            let _word = parser.take("TO") || parser.take("AS");
            to = parser.name(database);
        }
    }
    Statement::Alter { table, to, fills }
}

/// Whether an ALTER gives rows that are there values which no event tells.
fn fills(words: &[String]) -> bool {
    let upper: Vec<String> = words.iter().map(|word| word.to_ascii_uppercase()).collect();
    let mut depth = 0;
    let mut clauses: Vec<Vec<&str>> = vec![Vec::new()];
    for word in &upper {
        match word.as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            "," if depth == 0 => {
                clauses.push(Vec::new());
                continue;
            }
            _ => {}
        }
        if let Some(clause) = clauses.last_mut() {
            clause.push(word);
        }
    }
    clauses.iter().any(|clause| clause_fills(clause))
}

fn clause_fills(clause: &[&str]) -> bool {
    let has = |word: &str| clause.contains(&word);
    match clause {
        ["ADD", second, ..] => {
            let no_column =
                ["INDEX", "KEY", "PRIMARY", "UNIQUE", "FULLTEXT", "SPATIAL", "CONSTRAINT", "FOREIGN", "CHECK"];
            let no_column = no_column.contains(second) || *second == "PARTITION" || *second == "PERIOD";
            let null_default = clause.windows(2).any(|pair| pair == ["DEFAULT", "NULL"]);
            let empty = !has("NOT") && !has("AS") && !has("AUTO_INCREMENT") && !has("SERIAL");
            !no_column && !(empty && (!has("DEFAULT") || null_default))
        }
        // Values are converted to another type.
        ["MODIFY" | "CHANGE", ..] => true,
        ["CONVERT", ..] | ["DROP" | "TRUNCATE" | "EXCHANGE", "PARTITION", ..] => true,
        _ => false,
    }
}

fn rename_of(parser: &mut Parser, database: &str) -> Statement {
    if !parser.take("TABLE") && !parser.take("TABLES") {
        return Statement::Other;
    }
    parser.skip_if_exists();
    let mut pairs = Vec::new();
    while let Some(from) = parser.name(database) {
        if parser.take("WAIT") || parser.take("NOWAIT") {
            parser.at += usize::from(!parser.is("TO"));
        }
        parser.take("TO");
        let Some(to) = parser.name(database) else { break };
        pairs.push((from, to));
        if !parser.take(",") {
            break;
        }
    }
    Statement::Rename(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn statements_are_told_apart() {
        let cases = [
            ("BEGIN", Statement::Begin),
            ("COMMIT /* implicit, from Xid_log_event */", Statement::End),
            ("ROLLBACK TO SAVEPOINT a", Statement::RollbackTo),
            ("XA START X'61',X'',1", Statement::Xa),
            ("/* app */ insert into t values (1)", Statement::Data("INSERT", names(&["shop"]))),
            (
                "REPLACE INTO `percona`.`checksums` (a) SELECT x FROM shop.t",
                Statement::Data("REPLACE", names(&["percona"])),
            ),
            ("UPDATE x.t, u SET a = 1", Statement::Data("UPDATE", names(&["x", "shop"]))),
            ("TRUNCATE `a b`.`c``d`", Statement::Truncate(names(&["a b.c`d"]))),
            ("DROP TABLE IF EXISTS `t`, x.u /* generated by server */", Statement::Drop(names(&["shop.t", "x.u"]))),
            ("drop database if exists `shop`", Statement::DropDatabase("shop".into())),
            ("DROP TEMPORARY TABLE IF EXISTS `t`", Statement::Other),
            ("CREATE TABLE IF NOT EXISTS t (a int default '1')", Statement::Create("shop.t".into())),
            ("CREATE OR REPLACE TABLE t LIKE u", Statement::Create("shop.t".into())),
            ("CREATE INDEX i ON t (a)", Statement::Other),
            ("GRANT SELECT ON t TO me", Statement::Other),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text, "shop"), expected, "{text}");
        }
    }

    #[test]
    fn renames_are_read_pair_by_pair() {
        let swap = "rename /* gh-ost */ table `shop`.`t` to `shop`.`_t_del`, `shop`.`_t_gho` to `shop`.`t`";
        let pairs = [("shop.t", "shop._t_del"), ("shop._t_gho", "shop.t")];
        let pairs = pairs.map(|(from, to)| (from.to_owned(), to.to_owned())).to_vec();
        assert_eq!(read(swap, ""), Statement::Rename(pairs));
        assert!(
            is_copy("shop._t_gho", "shop.t") && is_copy("shop.__t_new", "shop.t") && is_copy("shop._t_new", "shop.t")
        );
        assert!(
            !is_copy("shop.t_new", "shop.t") && !is_copy("shop._u_gho", "shop.t") && !is_copy("x._t_gho", "shop.t")
        );
    }

    #[test]
    fn what_an_alter_does_to_rows_is_seen() {
        let cases = [
            ("ALTER TABLE t ADD COLUMN a int", None, false),
            ("ALTER TABLE t ADD a varchar(9) DEFAULT NULL COMMENT 'NOT'", None, false),
            ("ALTER TABLE t ADD a int DEFAULT 7, ADD INDEX (a)", None, true),
            ("ALTER TABLE t ADD (a int, b int NOT NULL)", None, true),
            ("ALTER TABLE t ADD a int GENERATED ALWAYS AS (b + 1) STORED", None, true),
            ("ALTER TABLE t DROP a, ADD UNIQUE KEY k (b), ALGORITHM=INPLACE", None, false),
            ("ALTER TABLE t MODIFY a bigint", None, true),
            ("ALTER TABLE t RENAME COLUMN a TO b", None, false),
            ("ALTER TABLE t RENAME TO x.u", Some("x.u"), false),
            ("ALTER TABLE t ENGINE=InnoDB, RENAME u", Some("shop.u"), false),
        ];
        for (text, to, fills) in cases {
            let expected = Statement::Alter { table: "shop.t".into(), to: to.map(str::to_owned), fills };
            assert_eq!(read(text, "shop"), expected, "{text}");
        }
    }
}
