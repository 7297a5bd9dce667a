//! The Redshift warehouse against the emulator: every type, and what goes wrong on the way.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Float64Array, Int16Array, Int32Array, Int64Array, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use dataflow::batch::Op;
use dataflow::contract::{Contract, Type};
use dataflow::epoch::{DeleteMode, LoadUnit};
use dataflow::error::{Disposition, ErrorKind};
use dataflow::pipeline::fold::fold;
use redshift_sim::{Fault, Isolation, Kind, Rule};

use crate::exactly_once::world::{EPOCHS, Stock, TABLES, busy_shop};
use crate::support::cluster::Cluster;
use crate::support::oracle::Oracle;
use crate::support::process::{LIMIT, Launch};
use crate::support::s3::{ACCESS_KEY, SECRET_KEY};
use crate::warehouse::{Change, Under, batch, contract, created, gone, moved, put, table, try_load, unit};

/// Applies a unit as a loader does: whatever passes is tried again, after a look at the ledger.
pub(crate) async fn apply_patiently(under: &Under, unit: &LoadUnit) -> u32 {
    for attempt in 1..100 {
        match under.warehouse().apply(unit).await {
            Ok(_) => return attempt,
            Err(error) => assert_eq!(error.disposition(), Disposition::Retry, "{error}"),
        }
        let stands = loop {
            match under.warehouse().applied(&unit.group).await {
                Ok(applied) => break applied.map_or(0, |applied| applied.through),
                Err(error) => assert_eq!(error.disposition(), Disposition::Retry, "{error}"),
            }
        };
        if stands == unit.through {
            return attempt;
        }
    }
    panic!("it never came through");
}

/// Five units of changes, with partial rows, moves and deletes, and what is there afterwards.
fn units() -> Vec<Vec<Change>> {
    let partial = |seq, id, a| Change { op: Op::Update, seq, id, old: None, a: Some(a), b: None };
    vec![
        vec![put(1, 1, 10, "one"), put(2, 2, 20, "two"), put(3, 3, 30, "three")],
        vec![put(4, 2, 21, "two again"), put(5, 4, 40, "four")],
        vec![partial(6, 1, 11), gone(7, 3), moved(8, 2, 5)],
        vec![put(9, 6, 60, "six")],
        vec![partial(10, 5, 50), put(11, 1, 12, "o'n\\e")],
    ]
}

const AFTER_ALL: [(i64, u64, i64, &str); 4] =
    [(1, 11, 12, "o'n\\e"), (4, 5, 40, "four"), (5, 10, 50, "two again"), (6, 9, 60, "six")];

/// Loads them while `rule` holds; says how many attempts it took.
pub(crate) async fn load_all(under: &Under, rule: Rule) -> u32 {
    let contract = contract();
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    under.cluster().sim.fail(rule);
    let mut attempts = 0;
    for (n, rows) in units().into_iter().enumerate() {
        let load = fold(&contract, DeleteMode::Hard, vec![batch(&contract, &rows)], false).unwrap();
        attempts += apply_patiently(under, &unit(n as u64, vec![load])).await;
    }
    attempts
}

pub(crate) async fn shown(under: &Under) -> Vec<(i64, u64, i64, String)> {
    let rows = under.things(false).await;
    rows.into_iter().map(|(id, (seq, a, b, _))| (id, seq, a, b.unwrap())).collect()
}

pub(crate) fn expected() -> Vec<(i64, u64, i64, String)> {
    AFTER_ALL.iter().map(|(id, seq, a, b)| (*id, *seq, *a, (*b).to_owned())).collect()
}

/// GIVEN a cluster that breaks at every kind of statement in turn, before it is done, or after, WHEN units are loaded, THEN
/// every one is loaded once.
async fn what_passes_is_tried_again(isolation: Isolation) {
    let kinds = [
        Kind::Begin,
        Kind::Lock,
        Kind::Select,
        Kind::Create,
        Kind::Copy,
        Kind::Delete,
        Kind::Insert,
        Kind::Drop,
        Kind::Commit,
    ];
    for fault in [Fault::Serializable, Fault::ResetBefore, Fault::AnswerLost] {
        let under = Under::isolated(isolation).await;
        for kind in kinds {
            under.reset().await;
            under.cluster().sim.reset_counters();
            load_all(&under, Rule::new(fault).on(kind).after(1).every(3).times(4)).await;
            assert_eq!(shown(&under).await, expected(), "{fault:?} at {kind:?}");
            assert!(under.cluster().sim.counters().injected > 0, "{fault:?} at {kind:?}: nothing went wrong");
            under.cluster().sim.heal();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again_and_nothing_is_loaded_twice() {
    what_passes_is_tried_again(Isolation::Serializable).await;
}

/// What new clusters have.
#[tokio::test(flavor = "multi_thread")]
async fn what_passes_under_snapshot_isolation_is_tried_again() {
    what_passes_is_tried_again(Isolation::Snapshot).await;
}

/// GIVEN a cluster on which every second commit fails with 1023, WHEN units are loaded, THEN each takes a second attempt.
#[tokio::test(flavor = "multi_thread")]
async fn every_second_commit_is_refused() {
    let under = Under::redshift().await;
    let attempts = load_all(&under, Rule::new(Fault::Serializable).on(Kind::Commit).every(2)).await;
    assert_eq!(attempts, 9, "five units, of which all but the first fail once");
    assert_eq!(shown(&under).await, expected());
    under.staging().settle().await;
    assert!(under.cluster().staged().is_empty(), "what was staged stays behind");
}

/// GIVEN groups that load at the same time, however transactions are isolated, THEN none of them is in another's way.
#[tokio::test(flavor = "multi_thread")]
async fn groups_do_not_conflict() {
    for isolation in [Isolation::Serializable, Isolation::Snapshot] {
        groups_do_not_conflict_under(isolation).await;
    }
}

async fn groups_do_not_conflict_under(isolation: Isolation) {
    let under = Under::isolated(isolation).await;
    let contracts: Vec<Arc<Contract>> =
        (0..6).map(|n| Arc::new(Contract { table: format!("t{n}"), ..Contract::clone(&contract()) })).collect();
    for contract in &contracts {
        under.warehouse().ensure(contract, DeleteMode::Hard).await.unwrap();
    }
    for n in 0..3 {
        let loads = contracts.iter().map(|contract| {
            let rows = [put(n + 1, 1, 1, "x"), put(n + 1, n as i64 + 2, 1, "y")];
            let load = fold(contract, DeleteMode::Hard, vec![batch(contract, &rows)], false).unwrap();
            LoadUnit { group: contract.table.clone(), ..unit(n, vec![load]) }
        });
        let loads: Vec<LoadUnit> = loads.collect();
        let applied = futures::future::join_all(loads.iter().map(|unit| under.warehouse().apply(unit))).await;
        applied.into_iter().for_each(|applied| assert_eq!(applied.unwrap().through, n + 1));
    }
    let counters = under.cluster().sim.counters();
    assert_eq!((counters.serialization_failures, counters.errors.get("XX000")), (0, None), "{isolation:?}");
    let fresh = under.warehouse().freshness().await.unwrap();
    assert_eq!(fresh.iter().map(|f| (f.table.as_str(), f.rows)).collect::<Vec<_>>()[..2], [("t0", 6), ("t1", 6)]);
}

/// The loads of so many groups of one table each, after `n` of them.
fn loads_of_groups(groups: usize, n: u64) -> Vec<(Arc<Contract>, LoadUnit)> {
    let load = |group: usize| {
        let contract = Arc::new(Contract { table: format!("t{group:02}"), ..Contract::clone(&contract()) });
        let rows = [put(n + 1, 1, n as i64, "x"), put(n + 1, n as i64 + 2, 1, "y")];
        let load = fold(&contract, DeleteMode::Hard, vec![batch(&contract, &rows)], false).unwrap();
        let unit = LoadUnit { group: contract.table.clone(), ..unit(n, vec![load]) };
        (contract, unit)
    };
    (0..groups).map(load).collect()
}

/// GIVEN many groups that are due at the same time, THEN four sessions are open, whatever breaks in the middle of a load,
/// whoever asks for nothing more; and none of their places is lost.
#[tokio::test(flavor = "multi_thread")]
async fn groups_share_four_sessions() {
    const GROUPS: usize = 12;
    let under = Under::redshift().await;
    let (warehouse, sim) = (under.warehouse(), &under.cluster().sim);
    for (contract, _) in loads_of_groups(GROUPS, 0) {
        warehouse.ensure(&contract, DeleteMode::Hard).await.unwrap();
    }
    let apply_all = async |n: u64| {
        let loads = loads_of_groups(GROUPS, n);
        futures::future::join_all(loads.iter().map(|(_, unit)| apply_patiently(&under, unit))).await
    };
    apply_all(0).await;
    assert_eq!(sim.counters().most_sessions, 4);
    // More sessions break in the middle of a COPY than there are places.
    sim.reset_counters();
    sim.fail(Rule::new(Fault::ResetBefore).on(Kind::Copy).times(10));
    let attempts = apply_all(1).await;
    assert_eq!((attempts.iter().sum::<u32>(), sim.counters().injected), (GROUPS as u32 + 10, 10));
    assert_eq!(sim.counters().most_sessions, 4);
    // Loads that nobody waits for any more, as often as there are places.
    sim.heal();
    for _ in 0..2 {
        sim.reset_counters();
        sim.fail(Rule::new(Fault::Silence).on(Kind::Copy));
        let stuck = async {
            while sim.counters().injected < 4 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = stuck => {}
            _done = apply_all(2) => panic!("no COPY is answered"),
        }
        sim.heal();
    }
    apply_all(2).await;
    let fresh = warehouse.freshness().await.unwrap();
    assert!(fresh.len() == GROUPS && fresh.iter().all(|f| f.epoch == 3 && f.rows == 6), "{fresh:?}");
}

/// GIVEN rows that Redshift cannot hold, THEN the table is parked with the column and the reason, before anything is sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_load_is_never_sent() {
    let under = Under::redshift().await;
    let cases: Vec<(Type, ArrayRef, &str)> = vec![
        (Type::Double, Arc::new(Float64Array::from(vec![f64::NAN])), "NaN"),
        (Type::Text { max_bytes: Some(3) }, Arc::new(StringArray::from(vec!["éé"])), "4 bytes"),
        (Type::TEXT, Arc::new(StringArray::from(vec!["a\0b"])), "NUL"),
        (Type::Json, Arc::new(StringArray::from(vec!["{"])), "not JSON"),
        (Type::Date, Arc::new(Date32Array::from(vec![-800_000])), "years"),
    ];
    for (n, (data_type, values, why)) in cases.into_iter().enumerate() {
        let mut contract = Contract::clone(&table(&[("id", Type::Int), ("v", data_type)], true));
        contract.table = format!("t{n}");
        let contract = Arc::new(contract);
        under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
        under.cluster().sim.reset_counters();
        let ids: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let error = try_load(&under, 0, created(&contract, 1, vec![ids, values])).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Table(contract.table.clone()));
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(under.cluster().sim.counters().of(Kind::Copy), 0);
        assert!(under.cluster().staged().is_empty());
    }
}

/// GIVEN more rows than one file takes, WHEN they come as whole rows and as partial ones, moves and deletes, THEN they go in
/// several files by one COPY, every row once, and a row that finds no base is told by its own key.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_go_in_several_files() {
    const ROWS: i64 = 3000;
    let under = Under::redshift_in_files(16 << 10).await;
    let contract = contract();
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let load = |rows: Vec<Change>| {
        let batches = rows.chunks(701).map(|rows| batch(&contract, rows)).collect();
        fold(&contract, DeleteMode::Hard, batches, false).unwrap()
    };
    let partial = |seq, id| Change { op: Op::Update, seq, id, old: None, a: Some(-id), b: None };
    let first = load((1..=ROWS).map(|id| put(id as u64, id, id, "as it was")).collect());
    under.warehouse().apply(&unit(0, vec![first])).await.unwrap();
    let counters = under.cluster().sim.counters();
    assert_eq!((counters.of(Kind::Copy), counters.copied_rows), (1, ROWS as u64));
    assert!(counters.copied_files >= 5, "{} files", counters.copied_files);
    under.cluster().sim.reset_counters();
    let changes = (1..=ROWS).map(|id| match id % 3 {
        0 => partial((ROWS + id) as u64, id),
        1 => gone((ROWS + id) as u64, id),
        _ => moved((ROWS + id) as u64, id, ROWS + id),
    });
    // Nothing stands under this key.
    let second = load(changes.chain([partial(2 * ROWS as u64 + 1, 9999)]).collect());
    let account = under.warehouse().apply(&unit(1, vec![second])).await.unwrap().accounts["things"];
    assert_eq!((account.applied, account.incomplete), (ROWS as u64, 1));
    let counters = under.cluster().sim.counters();
    assert!(counters.of(Kind::Copy) == 1 && counters.copied_files >= 5, "{} files", counters.copied_files);
    let incomplete = under.warehouse().incompletes("g", 0).await.unwrap();
    assert_eq!(incomplete.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["{\"id\":9999}"]);
    let expected = (1..=ROWS).filter_map(|id| match id % 3 {
        0 => Some((id, (ROWS + id) as u64, -id, "as it was".to_owned())),
        1 => None,
        _ => Some((ROWS + id, (ROWS + id) as u64, id, "as it was".to_owned())),
    });
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    assert_eq!(shown(&under).await, expected);
    assert!(under.cluster().staged().is_empty(), "what was staged stays behind");
}

/// Columns of every type, and values at their ends: three rows.
fn every_type() -> (Vec<(&'static str, Type)>, Vec<ArrayRef>) {
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let columns = vec![
        ("id", Type::Int),
        ("yes", Type::Boolean),
        ("small", Type::SmallInt),
        ("big", Type::BigInt),
        ("f8", Type::Double),
        ("dec9", decimal(9, 2)),
        ("dec18", decimal(18, 4)),
        ("dec38", decimal(38, 10)),
        ("wide", decimal(76, 0)),
        ("num", Type::Numeric),
        ("day", Type::Date),
        ("clock", Type::Time),
        ("span", Type::Duration),
        ("ts", Type::Timestamp),
        ("tstz", Type::TimestampTz),
        ("word", Type::TEXT),
        ("short", Type::Text { max_bytes: Some(8) }),
        ("raw", Type::Binary),
        ("doc", Type::Json),
        ("uid", Type::Uuid),
    ];
    let cast = |texts: [Option<&str>; 3], data_type: Type| -> ArrayRef {
        arrow::compute::cast(&(Arc::new(StringArray::from(texts.to_vec())) as ArrayRef), &data_type.arrow()).unwrap()
    };
    let max76 = "9".repeat(76);
    let times = || TimestampMicrosecondArray::from(vec![Some(253_402_300_799_999_999), Some(-1), None]);
    let values: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![1, i32::MIN, 3])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), None])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])),
        Arc::new(Float64Array::from(vec![Some(0.1), Some(-1.5e300), None])),
        cast([Some("-9999999.99"), Some("0.01"), None], decimal(9, 2)),
        cast([Some("99999999999999.9999"), Some("-0.0001"), None], decimal(18, 4)),
        cast([Some("9999999999999999999999999999.9999999999"), Some("-0.0000000001"), None], decimal(38, 10)),
        cast([Some(&max76), Some("-10000"), None], decimal(76, 0)),
        Arc::new(StringArray::from(vec![Some("-12345678901234567890.0123450"), Some("0.0001"), None])),
        Arc::new(Date32Array::from(vec![Some(-719_162), Some(2_932_896), None])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(0), Some(86_399_999_999), None])),
        Arc::new(Int64Array::from(vec![Some(0), Some(-90_061_000_001), None])),
        Arc::new(times()),
        Arc::new(times().with_timezone("UTC")),
        Arc::new(StringArray::from(vec![Some(""), Some("it's \"q\" \\N \t\n 日本 🎉"), None])),
        Arc::new(StringArray::from(vec![Some("12345678"), Some("日本"), None])),
        Arc::new(BinaryArray::from(vec![Some(&b"\0\xff"[..]), Some(b""), None])),
        Arc::new(StringArray::from(vec![Some("{\"b\":1,  \"a\":[1.5,null]}"), Some("\"x\""), None])),
        Arc::new(StringArray::from(vec![Some("123e4567-e89b-12d3-a456-426614174000"), Some("x"), None])),
    ];
    (columns, values)
}

/// Every type that a source can say, at its ends.
#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_loaded() {
    let under = Under::redshift().await;
    let (columns, values) = every_type();
    let contract = table(&columns, true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    try_load(&under, 0, created(&contract, 1, values)).await.unwrap();
    let mut shown = Vec::new();
    for (name, _) in &columns[1..] {
        let text = if *name == "raw" { "encode(raw, 'hex')".to_owned() } else { format!("CAST({name} AS text)") };
        let rows = under.rows(&format!("SELECT {text} FROM t ORDER BY _seq")).await;
        let values = rows.into_iter().map(|r| r[0].as_ref().map_or("∅".into(), |v| v.escape_debug().to_string()));
        shown.push(format!("{name}: {}", values.collect::<Vec<_>>().join(" | ")));
    }
    insta::assert_snapshot!(shown.join("\n"), @r##"
    yes: true | false | ∅
    small: -32768 | 32767 | ∅
    big: -9223372036854775808 | 9223372036854775807 | ∅
    f8: 0.1 | -1.5e+300 | ∅
    dec9: -9999999.99 | 0.01 | ∅
    dec18: 99999999999999.9999 | -0.0001 | ∅
    dec38: 9999999999999999999999999999.9999999999 | -0.0000000001 | ∅
    wide: 9999999999999999999999999999999999999999999999999999999999999999999999999999 | -10000 | ∅
    num: -12345678901234567890.0123450 | 0.0001 | ∅
    day: 0001-01-01 | 9999-12-31 | ∅
    clock: 00:00:00.000000 | 23:59:59.999999 | ∅
    span: 0 | -90061000001 | ∅
    ts: 9999-12-31 23:59:59.999999 | 1969-12-31 23:59:59.999999 | ∅
    tstz: 9999-12-31 23:59:59.999999+00 | 1969-12-31 23:59:59.999999+00 | ∅
    word:  | it\'s \"q\" \\N \t\n 日本 🎉 | ∅
    short: 12345678 | 日本 | ∅
    raw: 00ff |  | ∅
    doc: {\"a\": [1.5, null], \"b\": 1} | \"x\" | ∅
    uid: 123e4567-e89b-12d3-a456-426614174000 | x | ∅
    "##);
}

/// GIVEN a table that is there, WHEN its contract grows, THEN columns come and texts lengthen, as often as one asks; what
/// cannot be changed in place parks the table.
#[tokio::test(flavor = "multi_thread")]
async fn tables_grow() {
    let under = Under::redshift().await;
    let short = Type::Text { max_bytes: Some(3) };
    let first = table(&[("id", Type::BigInt), ("s", short)], true);
    let second = table(&[("id", Type::BigInt), ("s", Type::TEXT), ("new", Type::Boolean)], true);
    let ids = |id| -> ArrayRef { Arc::new(Int64Array::from(vec![id])) };
    let text = |text| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    under.warehouse().ensure(&first, DeleteMode::Hard).await.unwrap();
    try_load(&under, 0, created(&first, 1, vec![ids(1), text("abc")])).await.unwrap();
    for _ in 0..2 {
        under.warehouse().ensure(&second, DeleteMode::Hard).await.unwrap();
    }
    let new: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    try_load(&under, 1, created(&second, 2, vec![ids(2), text("longer than three"), new])).await.unwrap();
    under.warehouse().ensure(&first, DeleteMode::Hard).await.unwrap();
    let rows = under.rows("SELECT s, CAST(new AS text) FROM t ORDER BY _seq").await;
    let is = |text: &str| Some(text.to_owned());
    assert_eq!(rows, [[is("abc"), None], [is("longer than three"), is("true")]]);
    let other = table(&[("id", Type::Date), ("s", Type::TEXT)], true);
    let error = under.warehouse().ensure(&other, DeleteMode::Hard).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Table("t".into()));
    assert!(error.help_text().is_some());
}

/// GIVEN a text whose encoding Redshift does not lengthen, THEN its table is parked with what to do, and lengthened once that
/// is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_cannot_be_lengthened_says_why() {
    let under = Under::redshift().await;
    let texts = |max_bytes| table(&[("id", Type::BigInt), ("s", Type::Text { max_bytes })], true);
    let encode =
        |encoding: &str| format!("CALL sim.set_attributes('t'::regclass, '{{\"encode\": {{\"s\": \"{encoding}\"}}}}')");
    under.warehouse().ensure(&texts(Some(3)), DeleteMode::Hard).await.unwrap();
    under.execute(&encode("bytedict")).await;
    let error = under.warehouse().ensure(&texts(Some(9)), DeleteMode::Hard).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Table("t".into()));
    assert!(error.help_text().is_some_and(|help| help.contains("ENCODE zstd")), "{error}");
    under.execute(&encode("zstd")).await;
    for _ in 0..2 {
        under.warehouse().ensure(&texts(Some(9)), DeleteMode::Hard).await.unwrap();
    }
    let length = "SELECT character_maximum_length::text FROM information_schema.columns WHERE table_name = 't' AND column_name = 's'";
    assert_eq!(under.rows(length).await, [[Some("9".to_owned())]]);
}

/// The topology of a shop: files, a lake on S3, the cluster.
pub(crate) fn shop(cluster: &Cluster) -> String {
    let lake = cluster.lake();
    format!(
        "version: 1\nname: shop\nsources: {{ shop: {{ kind: file, path: events, follow: false }} }}\n{TABLES}\n\
         lake: {{ url: \"{url}\", region: eu-west-3, endpoint: \"{endpoint}\", access_key_id: {ACCESS_KEY}, \
         secret_access_key: {SECRET_KEY}, raw: {{ keep: none }}, quarantine: {{ key: \"{key}\", retention: 30d }} }}\n\
         warehouse: {{ kind: redshift, url: \"{warehouse}\", schema: shop, iam_role: \"{role}\" }}\nfresh_within: 250ms\n{EPOCHS}",
        url = lake.url,
        endpoint = cluster.s3.endpoint,
        key = "5a".repeat(32),
        warehouse = cluster.warehouse().url,
        role = cluster.warehouse().iam_role,
    )
}

/// GIVEN a process that is killed at every step of a load, WHEN it is started again and again while events come, THEN the
/// warehouse holds every row once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_of_a_load() {
    const STEPS: [&str; 8] = [
        "lake.stage.before",
        "lake.stage.after",
        "warehouse.copy.before",
        "warehouse.copy.after",
        "warehouse.ledger.before",
        "warehouse.ledger.after",
        "warehouse.commit.before",
        "warehouse.commit.after",
    ];
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let stock = Stock::make(93, busy_shop(1_200), 1_200);
    let (come, events) = (folder.path().join("to-come"), folder.path().join("events"));
    stock.write_files(&come, STEPS.len() + 1);
    std::fs::create_dir(&events).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(&come).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut files = files.into_iter();
    let mut more = || {
        if let Some(file) = files.next() {
            std::fs::rename(&file, events.join(file.file_name().unwrap())).unwrap();
        }
    };
    let launch = Launch::new(folder.path(), &shop(&cluster));
    for step in STEPS {
        more();
        let broken = launch.clone().failpoints(format!("{step}=1*off->return(kill)"));
        let mut process = broken.arg("--until-caught-up").run();
        let status = process.exit(LIMIT).await;
        assert!(!status.success(), "{step} was not passed\n{}", process.log_tail());
    }
    more();
    launch.run_until_caught_up().await;
    let oracle = Oracle::postgres(&cluster.postgres_url, "shop");
    oracle.assert(&oracle.differences(&stock.expected).await);
}

/// GIVEN a cluster that refuses commits, loses answers and goes away for a while, WHEN a shop is loaded, THEN it is there
/// once, and no log line holds the password.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_fails_now_and_then() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let stock = Stock::make(94, busy_shop(1_200), 1_200);
    stock.write_files(&folder.path().join("events"), 3);
    let rules = [
        // The first one gives the tables their groups: whoever wants an end wants to know that it is away.
        (2, Rule::new(Fault::Serializable).on(Kind::Commit).after(1)),
        (1, Rule::new(Fault::AnswerLost).on(Kind::Commit).after(1)),
        (2, Rule::new(Fault::ResetBefore).on(Kind::Copy).every(2)),
    ];
    let rules = rules.map(|(times, rule)| (times, cluster.sim.fail(rule.times(times))));
    let launch = Launch::new(folder.path(), &shop(&cluster));
    launch.run_until_caught_up().await;
    let oracle = Oracle::postgres(&cluster.postgres_url, "shop");
    oracle.assert(&oracle.differences(&stock.expected).await);
    assert!(!launch.whole_log().contains("Secret-1"));
    for (times, met) in rules {
        assert_eq!(met.times(), times, "{met:?}");
    }
    // Whoever ends waits until it is removed.
    assert!(cluster.staged().is_empty(), "{:?}", cluster.staged());
}

impl Under {
    pub(crate) fn cluster(&self) -> &Cluster {
        self.kept()
    }
}

impl Cluster {
    /// What is staged.
    pub(crate) fn staged(&self) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.s3.folder().join("lake/_stage")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found
    }
}
