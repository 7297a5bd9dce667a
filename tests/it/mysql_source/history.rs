//! What a history of DDL says of a table is what the server's catalog says, whatever was done to it.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{RngSeed, TestRunner};

use dataflow::wire::mysqlddl::{History, Mode, Scope, Shape, Statement};
use dataflow::wire::mysqltype::{CatalogColumn, DefaultValue};

use super::families;
use crate::support::mysql::{Family, server};

/// Statements that a server takes, of each family.
const TAKEN: usize = 150;

const TYPES: [&str; 70] = [
    "int",
    "int(7) unsigned",
    "tinyint(1)",
    "bool",
    "smallint zerofill",
    "bigint(20) unsigned",
    "mediumint",
    "int4",
    "decimal(10,2)",
    "decimal(5)",
    "numeric",
    "dec(6,1) unsigned",
    "fixed(4,4)",
    "float",
    "float(7,3)",
    "float(30)",
    "float(5)",
    "double precision",
    "real",
    "float8",
    "bit",
    "bit(12)",
    "year",
    "date",
    "time(3)",
    "time",
    "datetime(6)",
    "datetime",
    "timestamp(2) NULL",
    "timestamp",
    "char(5)",
    "char",
    "varchar(20)",
    "varchar(300) character set latin1",
    "character varying(7)",
    "national varchar(6)",
    "nchar(3)",
    "nchar varying(4)",
    "char(3) binary",
    "binary(4)",
    "binary",
    "varbinary(30)",
    "varchar(10) character set binary",
    "char(4) byte",
    "tinytext",
    "text",
    "text(20)",
    "text(70)",
    "text(300)",
    "text(20000)",
    "text(70) character set latin1",
    "mediumtext charset utf8mb3",
    "longtext collate utf8mb4_bin",
    "long",
    "long varbinary",
    "tinyblob",
    "blob",
    "blob(10)",
    "blob(70000)",
    "mediumblob",
    "longblob",
    "json",
    "enum('a','b''c','x,y','d ')",
    "set('p','q\\'r')",
    "enum('e','b\\\\z') charset latin1",
    "geometry",
    "point",
    "text ascii",
    "varchar(4) collate latin1_german1_ci",
    "character(2) unicode",
];
const ATTRIBUTES: [&str; 24] = [
    "",
    "",
    "",
    "",
    "not null",
    "null",
    "default null",
    "default 5",
    "default -1.5",
    "not null default 'a'",
    "default 'x,y'",
    "comment 'a, (b) first; after `c`'",
    "not null comment \"it's\" unique",
    "default '2020-01-01'",
    "invisible",
    "default '2020-01-01 10:11:12'",
    "default (1 + 2)",
    "default current_timestamp on update current_timestamp",
    "check (1 = 1) not null",
    "default true",
    "/* first */ default 0",
    "-- not null\n",
    "/*!50100 not null */",
    "unique key",
];
// Of an ENUM that is converted to UCS-2, MariaDB's own catalog is wrong afterwards.
const CHARSETS: [&str; 7] = ["latin1", "utf8mb4", "utf8mb3", "utf8", "ascii", "cp1251", "binary"];

struct Dice(TestRunner);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        (0..limit).new_tree(&mut self.0).unwrap().current()
    }

    fn pick<'a, T: ?Sized>(&mut self, among: &[&'a T]) -> &'a T {
        among[self.below(among.len())]
    }

    fn name(&mut self) -> String {
        self.pick(&["a", "B", "c", "`d e`", "f", "`g``h`", "größe", "first_", "period", "i"]).to_owned()
    }

    /// A column that is there, most of the time.
    fn known(&mut self, columns: &[CatalogColumn]) -> String {
        match columns.len() {
            0 => self.name(),
            some => {
                let at = self.below(some);
                format!("`{}`", columns[at].name.replace('`', "``"))
            }
        }
    }

    fn place(&mut self, columns: &[CatalogColumn]) -> String {
        match self.below(4) {
            0 => " FIRST".to_owned(),
            1 => format!(" after {}", self.known(columns)),
            _ => String::new(),
        }
    }

    fn definition(&mut self) -> String {
        if self.below(12) == 0 {
            let kind = self.pick(&["virtual", "stored", ""]);
            return format!("int generated always as (1 + 1) {kind}");
        }
        format!("{} {}", self.pick(&TYPES), self.pick(&ATTRIBUTES))
    }

    fn clause(&mut self, columns: &[CatalogColumn]) -> String {
        let (known, new, place) = (self.known(columns), self.name(), self.place(columns));
        let definition = self.definition();
        match self.below(20) {
            0..=3 => format!("ADD COLUMN {new} {definition}{place}"),
            4 => format!("add {new} {definition}{place}"),
            5 => format!("add ({new} {definition}, {} {})", self.name(), self.pick(&TYPES)),
            6 | 7 => format!("drop column {known}"),
            8 | 9 => format!("MODIFY {known} {definition}{place}"),
            10 | 11 => format!("change {known} {new} {definition}{place}"),
            12 => format!("rename column {known} to {new}"),
            13 => format!("alter column {known} set default {}", self.pick(&["5", "'a'", "null", "(3)"])),
            14 => format!("convert to character set {}", self.pick(&CHARSETS)),
            15 => format!("default character set = {}", self.pick(&CHARSETS)),
            16 => format!("add primary key ({known})"),
            17 => "drop primary key".to_owned(),
            18 => {
                format!("add {} ({known})", self.pick(&["unique", "index i1", "unique key u1", "constraint x1 unique"]))
            }
            _ => self
                .pick(&["engine = InnoDB row_format = dynamic", "comment 'add x int'", "algorithm = copy", "force"])
                .to_owned(),
        }
    }

    fn statement(&mut self, columns: &[CatalogColumn]) -> String {
        match self.below(16) {
            0 => "RENAME TABLE t TO u, u TO t".to_owned(),
            1 => "alter table t rename to `u`".to_owned(),
            2 => "alter table u rename as t".to_owned(),
            3 => format!("create unique index u2 on t ({})", self.known(columns)),
            4 => "drop index u1 on t".to_owned(),
            _ => {
                let swap = self.below(12) == 0 && columns.len() > 1;
                let mut clauses: Vec<String> = (0..=self.below(3)).map(|_| self.clause(columns)).collect();
                if swap {
                    let name = |at: usize| format!("`{}`", columns[at].name.replace('`', "``"));
                    let (one, other) = (name(0), name(1));
                    clauses =
                        vec![format!("rename column {one} to {other}"), format!("rename column {other} to {one}")];
                }
                format!("ALTER /* add z int */ TABLE t {}", clauses.join(", "))
            }
        }
    }
}

/// The table as the server has it.
async fn catalog(conn: &mut Conn, family: Family, table: &str) -> Shape {
    type Said = (String, String, String, Option<String>, String, String, String, Option<String>);
    let rows: Vec<Said> = conn
        .query(format!(
            "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLUMN_KEY, IS_NULLABLE, EXTRA, COLUMN_DEFAULT \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{table}' \
             ORDER BY ORDINAL_POSITION"
        ))
        .await
        .unwrap();
    let column = |(name, data_type, column_type, charset, key, null, extra, default): Said| {
        let extra = extra.to_uppercase();
        let expression = extra.contains("DEFAULT_GENERATED");
        let default = match (default, family) {
            (None, Family::MySql) => (null == "YES").then_some(DefaultValue::Null),
            (Some(_), Family::MySql) if expression => None,
            (Some(text), Family::MySql) => Some(DefaultValue::Text(text)),
            (None, Family::MariaDb) => None,
            (Some(text), Family::MariaDb) if text == "NULL" => Some(DefaultValue::Null),
            (Some(text), Family::MariaDb) => Some(DefaultValue::Text(text.trim_matches('\'').to_owned())),
        };
        CatalogColumn {
            name,
            data_type,
            column_type,
            charset,
            key: key == "PRI",
            nullable: null == "YES",
            generated: extra.replace("DEFAULT_GENERATED", "").contains("GENERATED"),
            invisible: extra.contains("INVISIBLE"),
            default,
            ..CatalogColumn::default()
        }
    };
    let columns = rows.into_iter().map(column).collect();
    let indexes: (u64, u64) = conn
        .query_first(format!(
            "SELECT count(CASE WHEN INDEX_NAME = 'PRIMARY' THEN 1 END), count(CASE WHEN INDEX_NAME <> 'PRIMARY' AND \
             NON_UNIQUE = 0 THEN 1 END) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND \
             TABLE_NAME = '{table}'"
        ))
        .await
        .unwrap()
        .unwrap();
    let charset: Option<String> = conn
        .query_first(format!(
            "SELECT substring_index(TABLE_COLLATION, '_', 1) FROM information_schema.TABLES WHERE \
             TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{table}'"
        ))
        .await
        .unwrap();
    Shape { charset: charset.unwrap_or_default(), columns, primary: indexes.0 > 0, unique: indexes.1 > 0 }
}

/// What decides how a column's values are read; how wide a whole number is shown does not.
fn decisive(column: &CatalogColumn) -> String {
    let data_type = &column.data_type;
    let declared = column.column_type.replace(" zerofill", "");
    let number = data_type.ends_with("int") || data_type == "year";
    let declared = match declared.split_once(')') {
        Some((_, rest)) if number => format!("{data_type}{rest}"),
        _ => declared,
    };
    let CatalogColumn { name, charset, key, nullable, generated, invisible, .. } = column;
    // Of an ENUM of bytes only MariaDB says it.
    let charset = charset.as_deref().filter(|charset| *charset != "binary");
    format!("{name}: {declared} {charset:?} key={key} null={nullable} generated={generated} invisible={invisible}")
}

/// A catalog may show the default of a column that is filled with zeros with them, whatever the statement said.
fn plain_default(column: &CatalogColumn, zerofill: bool) -> Option<DefaultValue> {
    match &column.default {
        Some(DefaultValue::Text(text)) if zerofill => Some(DefaultValue::Text(text.trim_start_matches('0').to_owned())),
        other => other.clone(),
    }
}

/// The columns that both say; a default that the history does not know may be any.
fn assert_same(history: &[CatalogColumn], catalog: &[CatalogColumn], told: &str) {
    let shown = |columns: &[CatalogColumn]| columns.iter().map(decisive).collect::<Vec<_>>();
    assert_eq!(shown(history), shown(catalog), "{told}");
    for (column, there) in history.iter().zip(catalog).filter(|(column, _)| column.default.is_some()) {
        let default = |column: &CatalogColumn| plain_default(column, there.column_type.contains("zerofill"));
        assert_eq!(default(column), default(there), "{}: {told}", decisive(column));
    }
}

/// The columns of a table that is made as pt-online-schema-change makes its copy.
async fn copy(conn: &mut Conn, table: &str, name: &str, database: &str, mode: Mode) -> Vec<CatalogColumn> {
    let (_, created): (String, String) = conn.query_first(format!("SHOW CREATE TABLE {table}")).await.unwrap().unwrap();
    let scope = Scope::new(&[name.to_owned()], 0);
    let mut anew = History::default();
    anew.set_server("latin1", true);
    if let Statement::Ddl(ddl) = Statement::read(&created, database, mode, &scope) {
        anew.apply(&ddl, &scope);
    }
    anew.columns(name).unwrap_or_else(|| panic!("{created}")).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_altered_the_history_says_what_the_catalog_says() {
    for family in families() {
        let url = server(family).database().await;
        let mut conn = Conn::from_url(&url).await.unwrap();
        let database = url.rsplit('/').next().unwrap().to_owned();
        let scope = Scope::new(&[format!("{database}.t"), format!("{database}.u")], 0);
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let config = proptest::test_runner::Config { rng_seed: RngSeed::Fixed(seed), ..Default::default() };
        let mut dice = Dice(TestRunner::new(config));
        let mode = Mode { strict: true, mariadb: family == Family::MariaDb, ..Mode::default() };
        conn.query_drop("CREATE TABLE t (id int PRIMARY KEY, x varchar(30), y text character set latin1)")
            .await
            .unwrap();
        let mut history = History::default();
        history.set_server("utf8mb4", true);
        history.set_database(&database, "utf8mb4");
        let mut now = catalog(&mut conn, family, "t").await;
        history.set_table(&format!("{database}.t"), now.clone());
        let (mut taken, mut lost, mut told) = (0, 0, Vec::new());
        while taken < TAKEN {
            let sql = dice.statement(&now.columns);
            if conn.query_drop(&sql).await.is_err() {
                continue;
            }
            taken += 1;
            told.push(sql.clone());
            if let Statement::Ddl(ddl) = Statement::read(&sql, &database, mode, &scope) {
                history.apply(&ddl, &scope);
            }
            let mut there = "t";
            now = catalog(&mut conn, family, there).await;
            if now.columns.is_empty() {
                there = "u";
                now = catalog(&mut conn, family, there).await;
            }
            let name = format!("{database}.{there}");
            let last = told.iter().rev().take(3).rev().cloned().collect::<Vec<_>>().join(";\n");
            if let Some(why) = history.unknown(&name) {
                // Which index took over the key, the statements do not say.
                let expected = why.contains("unique indexes") || why.contains("at once");
                assert!(expected, "{family:?}, seed {seed}: {why}\n{last}");
                lost += 1;
                history.set_table(&name, now.clone());
            }
            let columns = history.columns(&name).unwrap_or_else(|| panic!("{family:?} {last}"));
            assert_same(columns, &now.columns, &format!("{family:?}, seed {seed}\n{last}"));
            if taken % 5 == 0 {
                let copied = copy(&mut conn, there, &name, &database, mode).await;
                assert_same(&copied, &now.columns, &format!("{family:?}, seed {seed}\n{last}"));
            }
            if there == "u" || now.columns.len() > 25 {
                // Back to a table of few columns.
                let reset =
                    format!("drop table {there}; create table t (id int primary key, x varchar(30), y tinytext)");
                for sql in reset.split("; ") {
                    conn.query_drop(sql).await.unwrap();
                    if let Statement::Ddl(ddl) = Statement::read(sql, &database, mode, &scope) {
                        history.apply(&ddl, &scope);
                    }
                }
                now = catalog(&mut conn, family, "t").await;
                assert_same(history.columns(&format!("{database}.t")).unwrap(), &now.columns, "created");
            }
        }
        assert!(lost * 4 < taken, "{family:?}, seed {seed}: {lost} of {taken} were lost");
    }
}
