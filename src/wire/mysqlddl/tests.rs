//! Statements, and what they make of tables.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;
use crate::wire::mysqltype::DefaultValue;

const ORDERS: &str = "CREATE TABLE `orders` (
    `id` bigint unsigned NOT NULL AUTO_INCREMENT,
    `state` enum('new','it''s','x,y') COLLATE utf8mb4_bin NOT NULL DEFAULT 'new' COMMENT 'a, b (c)',
    note varchar(40) CHARACTER SET latin1 DEFAULT NULL, -- a remark
    amount DECIMAL(10,2) DEFAULT -1.5, made datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    total int GENERATED ALWAYS AS (amount * 2) VIRTUAL, raw varchar(9) CHARACTER SET binary,
    PRIMARY KEY (`id`) USING BTREE, KEY by_note (note(10)), CONSTRAINT c CHECK (amount > 0),
    FULLTEXT KEY words (note)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 /*!50100 PARTITION BY KEY (id) PARTITIONS 2 */";

/// A history of all tables that the tests name, and what a statement did to it.
struct Followed(History);

fn scope() -> Scope {
    let tables = ["orders", "a", "b", "c", "t", "u", "v", "d", "e"].map(|table| format!("shop.{table}"));
    let others = ["other.c", "shop2.u"].map(str::to_owned);
    Scope::new(&[tables.as_slice(), &others].concat(), 0)
}

impl std::ops::Deref for Followed {
    type Target = History;

    fn deref(&self) -> &History {
        &self.0
    }
}

impl Followed {
    fn apply(&mut self, sql: &str) -> Vec<Effect> {
        match Statement::read(sql, "shop", Mode { strict: true, ..Mode::default() }, &scope()) {
            Statement::Ddl(ddl) => self.0.apply(&ddl, &scope()),
            _ => Vec::new(),
        }
    }
}

fn history(statements: &[&str]) -> Followed {
    let mut history = History::default();
    history.set_server("utf8mb4", true);
    let mut history = Followed(history);
    for statement in statements {
        history.apply(statement);
    }
    history
}

/// `name column_type charset`, the key with a star.
fn shown(history: &Followed, table: &str) -> Vec<String> {
    let columns = history.columns(table).unwrap_or_else(|| panic!("{:?}", history.unknown(table)));
    let one = |column: &CatalogColumn| {
        let (key, charset) = (if column.key { "*" } else { "" }, column.charset.as_deref().unwrap_or(""));
        format!("{}{key} {} {charset}", column.name, column.column_type).trim_end().to_owned()
    };
    columns.iter().map(one).collect()
}

#[test]
fn a_table_is_created() {
    let history = history(&[ORDERS]);
    assert_eq!(
        shown(&history, "shop.orders"),
        [
            "id* bigint unsigned",
            "state enum('new','it''s','x,y') utf8mb4",
            "note varchar(40) latin1",
            "amount decimal(10,2)",
            "made datetime(6)",
            "total int",
            "raw varbinary(9)",
        ]
    );
    let columns = history.columns("shop.orders").unwrap();
    let default = |at: usize| columns[at].default.clone();
    assert_eq!(default(1), Some(DefaultValue::Text("new".into())));
    assert_eq!(default(2), Some(DefaultValue::Null));
    assert_eq!(default(3), Some(DefaultValue::Text("-1.50".into())));
    assert_eq!((default(0), default(4), default(5)), (None, None, None));
    assert!(columns[5].generated && !columns[0].nullable && columns[6].ordinal == 7);
    let stored = serde_json::to_string(&history.0).unwrap();
    assert_eq!(serde_json::from_str::<History>(&stored).unwrap(), history.0);
}

#[test]
fn types_have_their_real_names_and_character_sets_are_inherited() {
    let history = history(&[
        "create database shop default character set = latin1",
        "create table if not exists a (a boolean, b integer(5) unsigned zerofill, c numeric(5), d double precision, \
         e character varying(3), f national varchar(4), g char(2), h serial, i text character set utf8mb4, j geomcollection)",
        "create table b (x char(1)) collate utf8mb4_general_ci",
        "create table other.c (x text)",
    ]);
    assert_eq!(
        shown(&history, "shop.a"),
        [
            "a tinyint(1)",
            "b int(5) unsigned",
            "c decimal(5,0)",
            "d double",
            "e varchar(3) latin1",
            "f varchar(4) utf8mb3",
            "g char(2) latin1",
            "h* bigint unsigned",
            "i text utf8mb4",
            "j geometrycollection",
        ]
    );
    assert_eq!(shown(&history, "shop.b"), ["x char(1) utf8mb4"]);
    assert_eq!(shown(&history, "other.c"), ["x text utf8mb4"]);
}

#[test]
fn a_table_is_altered() {
    let history = history(&[
        "create table t (a int, b int, c int, primary key (a))",
        "alter table t add column d varchar(5) not null default 'x' after a, add e json first, drop column b, \
         add index i (c), engine = innodb, algorithm = inplace",
        "ALTER TABLE shop.t CHANGE COLUMN c `cc` bigint unsigned AFTER e, MODIFY d varchar(9) FIRST",
        "alter table t rename column e to ee, add (f date, g time(3)), drop primary key, add primary key (cc)",
        "alter table t alter column f set default '2000-01-01'",
        "alter table t rename to shop2.u",
    ]);
    assert!(history.columns("shop.t").is_none());
    assert_eq!(
        shown(&history, "shop2.u"),
        ["d varchar(9) utf8mb4", "ee json", "cc* bigint unsigned", "a int", "f date", "g time(3)"]
    );
    assert_eq!(history.columns("shop2.u").unwrap()[4].default, Some(DefaultValue::Text("2000-01-01".into())));
}

#[test]
fn an_online_schema_change_is_followed() {
    for copy in [["_t_gho", "_t_del"], ["_t_new", "_t_old"]] {
        let [copy, old] = copy;
        let history = history(&[
            "create table t (a int primary key)",
            &format!("create table shop.{copy} like shop.t"),
            &format!("alter table shop.{copy} add b int"),
            &format!("rename table shop.t to shop.{old}, shop.{copy} to shop.t"),
            &format!("drop table if exists shop.{old}"),
        ]);
        assert_eq!(shown(&history, "shop.t"), ["a* int", "b int"]);
        assert!(history.columns(&format!("shop.{old}")).is_none());
    }
}

fn altered(silent: Option<Silent>, key: bool) -> Effect {
    Effect::Altered { table: "shop.t".to_owned(), silent, key }
}

#[test]
fn effects_are_said() {
    let mut history = history(&["create table t (a int)", "create table u (a int)"]);
    let mut apply = |sql: &str| history.apply(sql);
    let t = || "shop.t".to_owned();
    assert_eq!(apply("truncate t"), [Effect::Truncated(t())]);
    assert_eq!(apply("create table if not exists t (x int)"), []);
    assert_eq!(apply("create table if not exists nobodys (x int)"), []);
    assert_eq!(apply("alter table t comment 'x'"), [altered(None, false)]);
    assert_eq!(apply("insert into t values (1)"), []);
    assert_eq!(apply("create index i on t (a)"), [altered(None, false)]);
    assert_eq!(apply("create temporary table t (z int)"), []);
    assert_eq!(apply("rename table t to v"), [Effect::Renamed { from: t(), to: "shop.v".into() }]);
    assert_eq!(apply("drop tables v, nothing"), [Effect::Dropped("shop.v".into())]);
    assert_eq!(apply("create table t (a int)"), [Effect::Created { table: t(), sure: true }]);
    assert_eq!(
        apply("create or replace table t (a int)"),
        [Effect::Dropped(t()), Effect::Created { table: t(), sure: true }]
    );
    assert!(apply("drop database shop").contains(&Effect::Dropped("shop.u".into())));
}

#[test]
fn what_an_alter_does_to_rows_is_seen() {
    use Silent::{Filled, Rewritten};
    let cases = [
        ("ADD COLUMN x int", None),
        ("ADD x varchar(9) DEFAULT NULL COMMENT 'NOT'", None),
        ("ADD x int DEFAULT 7, ADD INDEX (x)", Some(Filled)),
        ("ADD (x int, y int NOT NULL)", Some(Filled)),
        ("ADD x int GENERATED ALWAYS AS (b + 1) STORED", Some(Filled)),
        ("DROP a, ADD UNIQUE KEY k (b), ALGORITHM=INPLACE", None),
        ("MODIFY a bigint", None),
        ("MODIFY a smallint", Some(Rewritten)),
        ("MODIFY s varchar(20) CHARACTER SET utf8mb4 DEFAULT 'x'", None),
        ("RENAME COLUMN a TO c", Some(Rewritten)),
        ("CONVERT TO CHARACTER SET utf8mb4", None),
        ("CONVERT TO CHARACTER SET ascii", Some(Rewritten)),
        ("TRUNCATE PARTITION p0", Some(Rewritten)),
        ("ADD PARTITION (PARTITION p1 VALUES LESS THAN (10))", None),
        ("TRUNCATE PARTITION p0, p1", Some(Rewritten)),
        ("TRUNCATE PARTITION ALL", Some(Rewritten)),
        ("DROP PARTITION IF EXISTS p0, p1", Some(Rewritten)),
        ("EXCHANGE PARTITION p0 WITH TABLE elsewhere.x WITHOUT VALIDATION", Some(Rewritten)),
        ("CONVERT PARTITION p0 TO TABLE elsewhere.x", Some(Rewritten)),
        ("CONVERT TABLE elsewhere.x TO PARTITION p0 VALUES LESS THAN (10)", Some(Rewritten)),
        ("DISCARD PARTITION p0, p1 TABLESPACE", Some(Rewritten)),
        ("IMPORT PARTITION p0 TABLESPACE", Some(Rewritten)),
        ("DISCARD TABLESPACE", Some(Rewritten)),
        ("IMPORT TABLESPACE", Some(Rewritten)),
        ("ANALYZE PARTITION p0, p1", None),
        ("ENGINE=InnoDB, RENAME u", None),
    ];
    for (clauses, silent) in cases {
        let mut history = history(&["create table t (a int, b int, s varchar(9) character set latin1)"]);
        let effects = history.apply(&format!("ALTER TABLE t {clauses}"));
        assert_eq!(effects[0], altered(silent, false), "{clauses}");
    }
}

#[test]
fn tables_that_partitions_are_exchanged_with_are_changed_too() {
    let mut history = history(&["create table t (a int)", "create table u (a int)"]);
    let of = |table: &str| Effect::Altered { table: table.to_owned(), silent: Some(Silent::Rewritten), key: false };
    // Nobody follows `x`, whose partition it is.
    for sql in [
        "ALTER TABLE elsewhere.x EXCHANGE PARTITION p0 WITH TABLE shop.t WITHOUT VALIDATION",
        "SET STATEMENT lock_wait_timeout = 1 FOR ALTER TABLE elsewhere.x EXCHANGE PARTITION p0 WITH TABLE t",
    ] {
        assert_eq!(history.apply(sql), [of("shop.t")], "{sql}");
    }
    assert_eq!(history.apply("ALTER TABLE u EXCHANGE PARTITION p0 WITH TABLE t"), [of("shop.u"), of("shop.t")]);
    assert_eq!(shown(&history, "shop.t"), ["a int"]);
    let created = Effect::Created { table: "shop.v".into(), sure: true };
    assert_eq!(history.apply("ALTER TABLE u CONVERT PARTITION p0 TO TABLE v"), [of("shop.u"), created]);
    assert_eq!(shown(&history, "shop.v"), ["a int"]);
    let dropped = Effect::Dropped("shop.v".into());
    assert_eq!(history.apply("ALTER TABLE elsewhere.x CONVERT TABLE v TO PARTITION p1 DEFAULT"), [dropped]);
    assert!(history.columns("shop.v").is_none());
}

#[test]
fn clauses_name_columns_as_they_were_before() {
    let history = history(&[
        "create table t (a int, b varchar(5), c date, primary key (a))",
        "alter table t rename column a to b, rename column b to a",
        "alter table t change b c bigint, change c b date after c, drop a, add a json first, add period int",
        "alter table t add column if not exists C int, drop column if exists nothing, modify if exists nothing int",
    ]);
    assert_eq!(shown(&history, "shop.t"), ["a json", "c* bigint", "b date", "period int"]);
}

#[test]
fn a_conversion_makes_texts_wide_enough() {
    let history = history(&[
        "create table t (a text, b tinytext, c varchar(9), d enum('x'), e blob, f longtext) character set latin1",
        "alter table t convert to character set utf8mb4",
        "alter table t add g text(100), add h text(10)",
        "alter table t default character set ascii, add i char(2), add j char(2) collate utf8_bin, add k char(3) binary",
        "alter table t modify c varchar(9) character set binary",
    ]);
    let expected = ["a mediumtext utf8mb4", "b text utf8mb4", "c varbinary(9)", "d enum('x') utf8mb4", "e blob"];
    let more = ["f longtext utf8mb4", "g text utf8mb4", "h tinytext utf8mb4", "i char(2) ascii", "j char(2) utf8mb3"];
    assert_eq!(shown(&history, "shop.t"), [expected.as_slice(), &more, &["k char(3) ascii"]].concat());
}

#[test]
fn a_unique_index_stands_for_a_key_or_it_is_not_known_which() {
    let create = "create table t (a int not null, b int not null, c int, unique (c), unique k (a))";
    assert_eq!(shown(&history(&[create]), "shop.t"), ["a* int", "b int", "c int"]);
    let known = history(&[create, "alter table t add primary key (b)"]);
    assert_eq!(shown(&known, "shop.t"), ["a int", "b* int", "c int"]);
    let known = history(&["create table t (a int not null)", "create unique index i on t (a)"]);
    assert_eq!(shown(&known, "shop.t"), ["a* int"]);
    for change in [
        "drop index k on t",
        "alter table t modify a int",
        "alter table t drop key k",
        "alter table t modify a json not null",
    ] {
        assert!(history(&[create, change]).unknown("shop.t").is_some(), "{change}");
    }
    let hashed = ["create table t (a text not null unique)", "alter table t modify a varchar(9) not null"];
    assert!(history(&hashed).unknown("shop.t").is_some());
    let composite = ["create table t (a int, b int, c int, primary key (a, b))", "alter table t drop b"];
    assert_eq!(shown(&history(&composite), "shop.t"), ["a* int", "c int"]);
}

#[test]
fn what_is_not_understood_makes_its_table_unknown_and_no_other() {
    for statement in [
        "alter table t add column b money",
        "alter table t drop column nothing",
        "alter table t add a int",
        "alter table t add column b int after nothing",
        "alter table t frobnicate",
        "create or replace table t select 1 as a",
        "create table t as select * from u",
        "alter table t add column 'unfinished",
        "alter table t convert to character set latin1, change a b long varbinary",
    ] {
        let mut history = history(&["create table t (a int)", "create table u (a int)"]);
        history.apply(statement);
        assert!(history.unknown("shop.t").is_some() && history.columns("shop.t").is_none(), "{statement}");
        assert_eq!(shown(&history, "shop.u"), ["a int"], "{statement}");
        // The catalog says it anew.
        history.0.set_table("shop.t", Shape::default());
        assert!(history.unknown("shop.t").is_none());
    }
}

proptest! {
    #[test]
    fn any_statement_is_taken(sql in "(create table |alter table |rename table |drop )?[a-z`'(),. /*!-]{0,60}") {
        let mut history = history(&["create table t (a int)"]);
        history.apply(&sql);
        history.apply(&ORDERS.replace("NOT NULL", &sql));
    }
}
