//! Values that Redshift takes for something else than the source meant, or does not take in one go: blanks at the end of
//! keys, documents that are not there, numbers at the end of their type, keys of many bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Int64Array, StringArray};
use dataflow::batch::{Op, Seq, TableChanges};
use dataflow::config;
use dataflow::contract::{Contract, Type};
use dataflow::epoch::{DeleteMode, LoadUnit};
use dataflow::error::ErrorKind;
use dataflow::lake::Lake;
use dataflow::pipeline::fold::fold;
use dataflow::warehouse::{HeldKeys, HeldQuery, find};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::support::cluster::Cluster;
use crate::warehouse::{Under, created, table, try_load, unit};

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn numbers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// Updates that leave the columns unchanged for which `unchanged` holds.
fn updates(contract: &Arc<Contract>, first: u64, columns: Vec<ArrayRef>, unchanged: &[bool]) -> TableChanges {
    let created = created(contract, first, columns);
    let rows = created.len();
    let all = |unchanged: &bool| unchanged.then(|| BooleanArray::from(vec![true; rows]).values().clone());
    TableChanges { ops: vec![Op::Update; rows], unchanged: unchanged.iter().map(all).collect(), ..created }
}

/// What the cluster itself answers, each row in one text.
async fn asked(under: &Under, sql: &str) -> Vec<String> {
    asked_of(under.cluster(), sql).await
}

async fn asked_of(cluster: &Cluster, sql: &str) -> Vec<String> {
    let config: tokio_postgres::Config = cluster.sim.url().parse().unwrap();
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let messages = client.simple_query(sql).await.unwrap();
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|at| row.get(at).unwrap_or("∅").to_owned()).collect::<Vec<_>>().join("|"))
        .collect()
}

/// GIVEN keys that differ in trailing blanks alone, WHEN a unit brings one of them, THEN the others stay as they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_trailing_blanks_is_another_key() {
    let under = Under::redshift().await;
    let contract = table(&[("k", Type::Text { max_bytes: Some(20) }), ("n", Type::BigInt)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let rows = |first: u64, keys: &[&str], values: &[i64]| {
        let keys: Vec<Option<&str>> = keys.iter().copied().map(Some).collect();
        created(&contract, first, vec![texts(&keys), numbers(values)])
    };
    let loaded = try_load(&under, 0, rows(1, &["a", "a ", "a  ", ""], &[1, 2, 3, 4])).await.unwrap();
    assert_eq!((loaded.applied, loaded.superseded), (4, 0));
    let loaded = try_load(&under, 1, rows(5, &["a ", " "], &[20, 50])).await.unwrap();
    assert_eq!((loaded.applied, loaded.superseded), (2, 0));
    let held = under.rows("SELECT '<' || k || '>' || n FROM t ORDER BY n").await;
    assert_eq!(held.into_iter().flatten().flatten().collect::<Vec<_>>(), ["<a>1", "<a  >3", "<>4", "<a >20", "< >50"]);
}

/// GIVEN decimals of 19 digits, which Redshift keeps in 8 bytes, and of 38 behind the point, which it has no type for, THEN
/// they load to the last digit; a column of 19 digits that is there already makes room.
#[tokio::test(flavor = "multi_thread")]
async fn decimals_at_the_ends_of_their_types_are_kept_exactly() {
    let under = Under::redshift().await;
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let contract = table(&[("id", Type::BigInt), ("long", decimal(19, 4)), ("fine", decimal(38, 38))], true);
    under
        .execute("CREATE TABLE t (id bigint NOT NULL, long numeric(19,4), _seq varchar(48), _synced_at timestamp)")
        .await;
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let values = |values: Vec<i128>, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    };
    let (most, all) = (10i128.pow(19) - 1, 10i128.pow(38) - 1);
    let columns = |first: i64| {
        vec![numbers(&[first, first + 1]), values(vec![most, -most], 19, 4), values(vec![all, -1], 38, 38)]
    };
    try_load(&under, 0, created(&contract, 1, columns(1))).await.unwrap();
    let held = under.rows("SELECT CAST(long AS text), CAST(fine AS text) FROM t ORDER BY id").await;
    let held: Vec<String> =
        held.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join("|")).collect();
    assert_eq!(
        held,
        [format!("999999999999999.9999|0.{}", "9".repeat(38)), format!("-999999999999999.9999|-0.{}1", "0".repeat(37))]
    );
    // An update that does not bring them takes them from the row that is there.
    let partial = updates(&contract, 10, columns(1), &[false, true, true]);
    assert_eq!(try_load(&under, 1, partial).await.unwrap().applied, 2);
    let again = under.rows("SELECT CAST(long AS text) FROM t ORDER BY id").await;
    assert_eq!(
        again.concat().into_iter().flatten().collect::<Vec<_>>(),
        ["999999999999999.9999", "-999999999999999.9999"]
    );
}

/// GIVEN a document that is not there, one that is `null`, and one that is, WHEN an update leaves them unchanged, THEN they are
/// what they were, and the view shows the first as nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_not_there_stays_away() {
    let under = Under::redshift().await;
    let contract = table(&[("id", Type::BigInt), ("doc", Type::Json), ("n", Type::BigInt)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let documents = texts(&[None, Some("null"), Some("{\"a\":[null]}")]);
    let columns = |n: i64| vec![numbers(&[1, 2, 3]), Arc::clone(&documents), numbers(&[n; 3])];
    try_load(&under, 0, created(&contract, 1, columns(1))).await.unwrap();
    let shown = "SELECT id, doc, n FROM bi.t ORDER BY id";
    assert_eq!(asked(&under, shown).await, ["1|∅|1", "2|null|1", "3|{\"a\": [null]}|1"]);
    let nothing = vec![numbers(&[1, 2, 3]), texts(&[None; 3]), numbers(&[2; 3])];
    let loaded = try_load(&under, 1, updates(&contract, 10, nothing, &[false, true, false])).await.unwrap();
    assert_eq!(loaded.applied, 3);
    assert_eq!(asked(&under, shown).await, ["1|∅|2", "2|null|2", "3|{\"a\": [null]}|2"]);
    assert_eq!(asked(&under, "SELECT id FROM t WHERE doc IS NULL").await, ["1"]);
}

/// GIVEN a document that is too long for a text, THEN its view shows all rows, and its length in its place; whoever compares
/// reads it whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_does_not_take_its_view_away() {
    let under = Under::redshift().await;
    let contract = table(&[("id", Type::BigInt), ("doc", Type::Json)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    try_load(&under, 0, created(&contract, 1, vec![numbers(&[1]), texts(&[Some("[1]")])])).await.unwrap();
    let long = "(SELECT jsonb_agg(md5(n::text)) FROM generate_series(1, 3000) n)";
    under.execute(&format!("INSERT INTO t (id, doc, _seq) VALUES (2, {long}, '')")).await;
    let bytes = asked(&under, "SELECT json_size(doc) FROM t WHERE id = 2").await.remove(0);
    let shown = asked(&under, "SELECT doc FROM bi.t ORDER BY id").await;
    assert_eq!((shown.len(), shown[0].as_str()), (2, "[1]"));
    assert!(shown[1].len() < 100 && shown[1].contains(&bytes), "{shown:?}");
    assert!(serde_json::from_str::<serde_json::Value>(&shown[1]).unwrap().is_object(), "{shown:?}");
    let config = config::Warehouse::Redshift(under.cluster().warehouse());
    let found = find(&config, "t").await.unwrap().expect("it has been loaded");
    let columns = [("doc".to_owned(), Type::Json)];
    let query = HeldQuery { table: "t", columns: &columns, mode: DeleteMode::Hard, keys: None };
    let mut lengths = Vec::new();
    let mut take = |row: &dataflow::warehouse::HeldRow| {
        let document = serde_json::from_str::<Vec<serde_json::Value>>(row.cells[0].as_deref().unwrap());
        lengths.push(document.unwrap().len());
        Ok(())
    };
    assert!(found.held_rows(&query, &mut take).await.unwrap());
    lengths.sort_unstable();
    assert_eq!(lengths, [1, 3000]);
}

/// GIVEN a document of 100 KB, WHEN updates leave it unchanged beside one that is not there and one that is `null`, THEN each is
/// what it was, and the view shows all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_stays_when_its_row_changes() {
    let under = Under::redshift().await;
    let contract = table(&[("k", Type::TEXT), ("doc", Type::Json), ("n", Type::BigInt)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let long = serde_json::json!((0..3000).map(|n| format!("{n:032}")).collect::<Vec<_>>()).to_string();
    assert!(long.len() > 100_000);
    // Keys that differ in trailing blanks alone: what is filled comes from the row itself, and not from its neighbour.
    let keys = || texts(&[Some("k"), Some("k "), Some("k  "), Some("k   ")]);
    let documents = texts(&[Some(&long), None, Some("null"), Some("[1]")]);
    let columns = |documents: ArrayRef, n: i64| vec![keys(), documents, numbers(&[n; 4])];
    try_load(&under, 0, created(&contract, 1, columns(documents, 1))).await.unwrap();
    let held = "SELECT octet_length(k), md5(CAST(doc AS text)), CAST(n AS text) FROM t ORDER BY 1";
    let held = held.replace("octet_length(k)", "CAST(octet_length(k) AS text)");
    let before = under.rows(&held).await;
    for n in 1..3 {
        let nothing = columns(texts(&[None; 4]), n + 1);
        let loaded =
            try_load(&under, n as u64, updates(&contract, 10 * n as u64, nothing, &[false, true, false])).await;
        assert_eq!(loaded.unwrap().applied, 4);
        let now = under.rows(&held).await;
        assert!(now.iter().all(|row| row[2] == Some((n + 1).to_string())), "{now:?}");
        let documents = |rows: &[Vec<Option<String>>]| rows.iter().map(|row| row[..2].to_vec()).collect::<Vec<_>>();
        assert_eq!(documents(&now), documents(&before));
    }
    let shown = asked(&under, "SELECT doc FROM bi.t ORDER BY octet_length(k)").await;
    assert_eq!((shown.len(), &shown[1..]), (4, &["∅", "null", "[1]"].map(str::to_owned)[..]));
    assert!(shown[0].len() < 100 && shown[0].contains("10"), "{shown:?}");
}

/// GIVEN a table with a column of short binary values, WHEN longer ones come, THEN they are held.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_short_binary_values_makes_room() {
    let under = Under::redshift().await;
    asked(&under, "CREATE TABLE t (id bigint NOT NULL, by varbyte(10), _seq varchar(48), _synced_at timestamp)").await;
    let contract = table(&[("id", Type::BigInt), ("by", Type::Binary)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let raw: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&[7u8; 64_000], b"short"]));
    try_load(&under, 0, created(&contract, 1, vec![numbers(&[1, 2]), raw])).await.unwrap();
    assert_eq!(asked(&under, "SELECT octet_length(by) FROM t ORDER BY id").await, ["64000", "5"]);
}

/// GIVEN hundreds of partial rows without a base and with keys of 60 KB, THEN they are kept in statements that Redshift takes;
/// and `verify` asks for as many keys without a statement that it would refuse.
#[tokio::test(flavor = "multi_thread")]
async fn long_keys_do_not_make_a_statement_too_long() {
    const ROWS: usize = 300;
    let under = Under::redshift().await;
    let contract = table(&[("k", Type::TEXT), ("n", Type::BigInt)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let keys: Vec<String> = (0..ROWS).map(|n| format!("{n:05}{}", "k".repeat(60_000))).collect();
    let columns = || {
        let keys: ArrayRef = Arc::new(StringArray::from(keys.clone()));
        vec![keys, numbers(&[1; ROWS])]
    };
    let loaded = try_load(&under, 0, updates(&contract, 1, columns(), &[false, true])).await.unwrap();
    assert_eq!(loaded.incomplete, ROWS as u64);
    try_load(&under, 1, created(&contract, 1_000, columns())).await.unwrap();
    let seen = held(&under, 300, Some(&keys), |_| ()).await;
    assert_eq!(seen, ROWS);
}

/// Reads the rows of the table `t (k text, n bigint)`, at least those of `keys`; how many came. `limit_s`: how long the
/// cluster may be silent.
async fn held(under: &Under, limit_s: u64, keys: Option<&[String]>, mut each: impl FnMut(u64) + Send) -> usize {
    let warehouse =
        config::RedshiftWarehouse { statement_timeout: config::Span::seconds(limit_s), ..under.cluster().warehouse() };
    let found = find(&config::Warehouse::Redshift(warehouse), "t").await.unwrap().expect("it has been loaded");
    let columns = [("k".to_owned(), Type::TEXT), ("n".to_owned(), Type::BigInt)];
    let keys = keys.map(|keys| HeldKeys {
        columns: vec![columns[0].clone()],
        rows: keys.iter().map(|key| vec![key.clone()]).collect(),
    });
    let query = HeldQuery { table: "t", columns: &columns, mode: DeleteMode::Hard, keys: keys.as_ref() };
    let mut seen = 0;
    let mut take = |row: &dataflow::warehouse::HeldRow| {
        each(Seq::parse(row.seq.as_deref().unwrap()).unwrap().major);
        seen += 1;
        Ok(())
    };
    assert!(found.held_rows(&query, &mut take).await.unwrap());
    seen
}

/// GIVEN a reading of rows that takes longer than a statement may be silent, THEN it comes to its end all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_reading_is_no_silence() {
    const ROWS: usize = 150;
    let under = Under::redshift().await;
    let contract = table(&[("k", Type::TEXT), ("n", Type::BigInt)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    // More than lies in any buffer between here and there.
    let keys: Vec<String> = (0..ROWS).map(|n| format!("{n:05}{}", "k".repeat(60_000))).collect();
    let keys: ArrayRef = Arc::new(StringArray::from(keys));
    try_load(&under, 0, created(&contract, 1, vec![keys, numbers(&[1; ROWS])])).await.unwrap();
    // Whoever compares takes its time: six seconds in all, of which the cluster keeps silent for none.
    let seen = held(&under, 5, None, |_| std::thread::sleep(Duration::from_millis(40))).await;
    assert_eq!(seen, ROWS);
}

/// GIVEN a topology, a group, a table and a column with names of 127 bytes, THEN they are loaded, and loaded again by another
/// process, with a longer column meanwhile, and people see them; a name of one byte more parks its table, and a topology or a
/// group whose name begins like that has control tables of its own.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_127_bytes_are_names() {
    let cluster = Cluster::start().await;
    let staging = dataflow::pipeline::staging::staging(&Lake::open(&cluster.lake()).unwrap());
    let config = config::Warehouse::Redshift(cluster.warehouse());
    let open = |topology: String| {
        let (config, staging) = (config.clone(), Arc::clone(&staging));
        async move { dataflow::warehouse::open(&config, &topology, staging).await.unwrap() }
    };
    let long = |first: &str| format!("{first}{}", "n".repeat(127 - first.len()));
    let (topology, group, name, column) = (long("Topology é "), long("group"), long("things"), long("word"));
    let groups = BTreeMap::from([(group.clone(), vec![name.clone()])]);
    let contract = |max_bytes: u32, name: &str| {
        let columns = [("id", Type::BigInt), (column.as_str(), Type::Text { max_bytes: Some(max_bytes) })];
        Arc::new(Contract { table: name.to_owned(), ..Contract::clone(&table(&columns, true)) })
    };
    for (n, word) in [(0, "short"), (1, "not so short")] {
        dataflow::warehouse::assign(&config, &topology, &groups, &[]).await.unwrap();
        let warehouse = open(topology.clone()).await;
        let contract = contract(word.len() as u32, &name);
        warehouse.ensure(&contract, DeleteMode::Hard).await.unwrap();
        let rows = created(&contract, n + 1, vec![numbers(&[n as i64]), texts(&[Some(word)])]);
        let load = fold(&contract, DeleteMode::Hard, vec![rows], false).unwrap();
        warehouse.apply(&LoadUnit { group: group.clone(), ..unit(n, vec![load]) }).await.unwrap();
    }
    let shown = asked_of(&cluster, &format!("SELECT \"{column}\" FROM bi.\"{name}\" ORDER BY id")).await;
    assert_eq!(shown, ["short", "not so short"]);
    assert_eq!(asked_of(&cluster, "SELECT table_name, changes FROM bi.freshness").await, [format!("{name}|2")]);
    let warehouse = open(topology.clone()).await;
    assert_eq!(warehouse.applied(&group).await.unwrap().map(|applied| applied.through), Some(2));
    assert_eq!(warehouse.applied(&format!("{group}n")).await.unwrap(), None);
    assert_eq!(open(format!("{topology}n")).await.applied(&group).await.unwrap(), None);
    let error = warehouse.ensure(&contract(9, &format!("{name}n")), DeleteMode::Hard).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Table(format!("{name}n")));
    assert!(error.to_string().contains("longer than the 127 bytes"), "{error}");
}
