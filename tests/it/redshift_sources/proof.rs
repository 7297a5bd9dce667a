//! What is proven to load does load, and what is refused would not: values of every type, at their ends and beyond.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema};
use dataflow::contract::{Limits, Type};
use dataflow::epoch::DeleteMode;
use dataflow::lake::Lake;
use dataflow::pipeline::fold::fold;
use dataflow::pipeline::staging::staging;
use dataflow::warehouse::Staging;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio_postgres::{Client, NoTls};

use crate::support::cluster::Cluster;
use crate::warehouse::{Under, created, table, unit};

/// Values of each type.
const VALUES: usize = 24;
const YEAR_1_US: i64 = -62_135_596_800_000_000;
const YEAR_9999_US: i64 = 253_402_300_799_999_999;
const DAY_US: i64 = 86_400_000_000;

fn some<T: std::fmt::Debug>(runner: &mut TestRunner, of: impl Strategy<Value = T>) -> Vec<T> {
    vec(of, VALUES).new_tree(runner).unwrap().current()
}

/// A text of about so many bytes.
fn near(bytes: usize) -> impl Strategy<Value = String> {
    (bytes - 4..bytes + 5, prop_oneof![Just("x"), Just("é"), Just("日"), Just("🎉")]).prop_map(|(bytes, c)| {
        let text = c.repeat(bytes / c.len());
        format!("{}{text}", "x".repeat(bytes - text.len()))
    })
}

fn short() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-c \\\\\"'é日🎉]{0,6}", 1 => "[ab\0]{1,4}", 1 => Just("\u{10ffff}\u{feff}".to_owned())]
}

/// Documents, and what is nearly one.
fn document() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        (-9i8..10, prop_oneof![-400i32..400, Just(99_999)]).prop_map(|(n, e)| format!("{n}e{e}")),
        (1000usize..1050).prop_map(|n| "7".repeat(n)),
    ];
    let text = prop_oneof![
        short().prop_map(|text| serde_json::Value::from(text).to_string()),
        "\"(\\\\u[0-9d][089a-f][0-9a-f]{2}|\\\\\\\\|a|é){0,4}\"",
    ];
    let leaf = prop_oneof![number, text, Just("null".to_owned()), Just("true".to_owned()), Just("NaN".to_owned())];
    let tree = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(" , "))),
            vec(inner, 0..3).prop_map(|items| {
                let fields = items.iter().enumerate().map(|(n, item)| format!("\"k{}\": {item}", n / 2));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
            }),
        ]
    });
    let cut = |(text, at): (String, prop::sample::Index)| {
        let mut chars: Vec<char> = text.chars().collect();
        chars.remove(at.index(chars.len()));
        chars.into_iter().collect::<String>()
    };
    prop_oneof![
        6 => tree.clone(),
        2 => (tree, any::<prop::sample::Index>()).prop_map(cut),
        1 => (990usize..1010).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        1 => near(65_533).prop_map(|text| format!("\"{text}\"")),
        1 => (near(65_535), near(65_535)).prop_map(|(a, b)| format!("{{\"{a}\":[\"{b}\"]}}")),
        1 => (65_530usize..65_540).prop_map(|bytes| format!("[\"{}\",{}]", "\\n".repeat(bytes), "-1,".repeat(9) + "0")),
        1 => Just(String::new()),
    ]
}

/// A document of so many bytes, of strings that are not too long.
fn of_bytes(bytes: usize) -> String {
    let mut text = "[".to_owned();
    while text.len() + 60_004 < bytes {
        text.push_str(&format!("\"{}\",", "x".repeat(60_000)));
    }
    format!("{text}\"{}\"]", "x".repeat(bytes - text.len() - 3))
}

/// Numbers about the first that has too many digits.
fn digits(precision: u32) -> impl Strategy<Value = i128> {
    let end = 10i128.pow(precision);
    (prop_oneof![-3i128..4, (end - 3)..(end + 4)], any::<bool>()).prop_map(|(n, minus)| if minus { -n } else { n })
}

fn times() -> impl Strategy<Value = i64> {
    let about = |at: i64| at - 3..at + 4;
    prop_oneof![about(YEAR_1_US), about(YEAR_9999_US), about(0), any::<i64>()]
}

fn values(runner: &mut TestRunner) -> Vec<(Type, ArrayRef)> {
    let decimal = |runner: &mut TestRunner, precision: u8, scale: i8| -> (Type, ArrayRef) {
        let numbers = Decimal128Array::from(some(runner, digits(precision.into())));
        let numbers = numbers.with_precision_and_scale(precision, scale).unwrap();
        (Type::Decimal { precision, scale }, Arc::new(numbers))
    };
    let texts = |texts: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(texts)) };
    let dates = prop_oneof![-719_165i32..-719_158, 2_932_893i32..2_932_900, any::<i32>()];
    let utc = TimestampMicrosecondArray::from(some(runner, times())).with_timezone("UTC");
    let numerics = prop_oneof![near(1024).prop_map(|text| "1".repeat(text.len())), Just("-0.5".to_owned())];
    vec![
        (Type::Boolean, Arc::new(BooleanArray::from(some(runner, any::<bool>())))),
        (Type::SmallInt, Arc::new(Int16Array::from(some(runner, any::<i16>())))),
        (Type::Int, Arc::new(Int32Array::from(some(runner, any::<i32>())))),
        (Type::BigInt, Arc::new(Int64Array::from(some(runner, any::<i64>())))),
        (Type::Duration, Arc::new(Int64Array::from(some(runner, any::<i64>())))),
        (Type::Real, Arc::new(Float32Array::from(some(runner, prop::num::f32::ANY)))),
        (Type::Double, Arc::new(Float64Array::from(some(runner, prop::num::f64::ANY)))),
        decimal(runner, 9, 2),
        decimal(runner, 18, 18),
        decimal(runner, 19, 4),
        decimal(runner, 38, 10),
        // Text in Redshift, which has no type for it: it holds whatever the type says.
        (Type::Decimal { precision: 38, scale: 38 }, {
            let end = 10i128.pow(38);
            let numbers = some(runner, prop_oneof![1 - end..4 - end, -3i128..4, end - 3..end]);
            Arc::new(Decimal128Array::from(numbers).with_precision_and_scale(38, 38).unwrap())
        }),
        (Type::Numeric, texts(some(runner, numerics))),
        (Type::Date, Arc::new(Date32Array::from(some(runner, dates)))),
        (Type::Time, Arc::new(Time64MicrosecondArray::from(some(runner, 0..=DAY_US)))),
        (Type::Timestamp, Arc::new(TimestampMicrosecondArray::from(some(runner, times())))),
        (Type::TimestampTz, Arc::new(utc)),
        (Type::Text { max_bytes: Some(5) }, texts(some(runner, short()))),
        (Type::TEXT, texts(some(runner, near(65_535)))),
        (Type::Uuid, texts(some(runner, near(36)))),
        (Type::Json, texts(some(runner, document()))),
        (Type::Json, texts([16_000_000usize, 16_000_001].map(of_bytes).to_vec())),
        (Type::Binary, {
            let bytes = some(runner, prop_oneof![63_998usize..64_003, 0usize..4]);
            Arc::new(BinaryArray::from_iter_values(bytes.into_iter().map(|n| vec![0xff; n])))
        }),
    ]
}

/// The rows of a column that are proven, and those that are refused.
fn judged(data_type: Type, values: &ArrayRef) -> (ArrayRef, ArrayRef) {
    let proven = |row: &u32| Limits::REDSHIFT.refusal(data_type, values, *row as usize).is_none();
    let (good, bad): (Vec<u32>, Vec<u32>) = (0..values.len() as u32).partition(proven);
    let pick = |rows: Vec<u32>| take(values, &UInt32Array::from(rows), None).unwrap();
    (pick(good), pick(bad))
}

/// GIVEN values of every type, WHEN those that are proven are loaded, THEN COPY takes all of them; and WHEN those that are
/// refused are loaded all the same, one by one, THEN it takes none.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_proven_loads_and_what_is_refused_would_not() {
    let under = Under::redshift().await;
    let cluster: &Cluster = under.kept();
    let place = staging(&Lake::open(&cluster.lake()).unwrap());
    let client = client(cluster).await;
    let mut runner = TestRunner::deterministic();
    let mut refused = 0;
    for (number, (data_type, values)) in values(&mut runner).into_iter().enumerate() {
        let (good, bad) = judged(data_type, &values);
        assert!(!good.is_empty(), "{data_type}: nothing is proven");
        let mut contract = dataflow::contract::Contract::clone(&table(&[("id", Type::Int), ("v", data_type)], true));
        contract.table = format!("t{number}");
        let contract = Arc::new(contract);
        under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
        let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(0..good.len() as i32));
        let rows = created(&contract, 1, vec![ids, Arc::clone(&good)]);
        let load = fold(&contract, DeleteMode::Hard, vec![rows], false).unwrap();
        let loaded = under.warehouse().apply(&unit(number as u64, vec![load])).await;
        loaded.unwrap_or_else(|error| panic!("{data_type}: {error}: {good:?}"));
        let there = under.rows(&format!("SELECT CAST(count(v) AS text) FROM t{number}")).await;
        assert_eq!(there, [[Some(good.len().to_string())]], "{data_type}");
        for row in 0..bad.len() {
            let value = bad.slice(row, 1);
            let answer = copy_unproven(&client, &*place, &cluster.warehouse().iam_role, data_type, &value).await;
            assert!(answer.is_err(), "{data_type}: it would have loaded: {value:?}");
            refused += 1;
        }
    }
    assert!(refused > VALUES, "only {refused} values were refused");
}

pub async fn client(cluster: &Cluster) -> Client {
    let url = cluster.warehouse().url.replace("redshift://", "postgres://");
    let config: tokio_postgres::Config = url.parse().unwrap();
    let socket = tokio::net::TcpStream::connect(("127.0.0.1", cluster.sim.port())).await.unwrap();
    let (client, connection) = config.connect_raw(socket, NoTls).await.unwrap();
    tokio::spawn(connection);
    // As in the loader's sessions: a document that has a name twice is refused for nothing of that.
    client.simple_query("SET json_parse_dedup_attributes TO on").await.unwrap();
    client
}

/// Loads one value as a stage would hold it, whatever it is.
pub async fn copy_unproven(
    client: &Client,
    place: &dyn Staging,
    role: &str,
    data_type: Type,
    value: &ArrayRef,
) -> Result<(), tokio_postgres::Error> {
    let column = match data_type {
        Type::Int => "integer".to_owned(),
        Type::BigInt => "bigint".to_owned(),
        Type::Real => "real".to_owned(),
        Type::Double => "double precision".to_owned(),
        Type::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        Type::Date => "date".to_owned(),
        Type::Timestamp | Type::TimestampTz => "timestamp".to_owned(),
        Type::Binary => "varbyte".to_owned(),
        other => format!("varchar({})", Limits::REDSHIFT.bytes_of(other).unwrap()),
    };
    if data_type == Type::Json && Limits::REDSHIFT.is_large(value.as_string::<i32>().value(0)) {
        let body = large_document(value.as_string::<i32>().value(0));
        return copy_file(client, place, role, ("super", false), body).await;
    }
    let value = match value.data_type() {
        DataType::Timestamp(unit, Some(_)) => arrow::compute::cast(value, &DataType::Timestamp(*unit, None)).unwrap(),
        _ => Arc::clone(value),
    };
    let schema = Arc::new(Schema::new(vec![Field::new("v", value.data_type().clone(), true)]));
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), None).unwrap();
    writer.write(&RecordBatch::try_new(schema, vec![value]).unwrap()).unwrap();
    let body = writer.into_inner().unwrap();
    copy_file(client, place, role, (&column, data_type == Type::Json), body).await
}

/// A file of one document that says that it is one.
fn large_document(document: &str) -> Vec<u8> {
    let schema = Arc::new(parse_message_type("message m { optional binary v (JSON); }").unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(document)], Some(&[1]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

/// Loads a file of one column of a type; `parse`: and makes documents of it.
async fn copy_file(
    client: &Client,
    place: &dyn Staging,
    role: &str,
    (column, parse): (&str, bool),
    body: Vec<u8>,
) -> Result<(), tokio_postgres::Error> {
    // Names of their own: what is discarded is removed when the store gets round to it.
    let [file, manifest] = ["parquet", "manifest"].map(|end| format!("{}.{end}", ulid::Ulid::new()));
    let entry = serde_json::json!({"url": place.url(&file), "mandatory": true, "meta": {"content_length": body.len()}});
    place.put(&file, body.into()).await.unwrap();
    place.put(&manifest, serde_json::json!({"entries": [entry]}).to_string().into()).await.unwrap();
    client.simple_query(&format!("CREATE TEMP TABLE unproven (v {column})")).await.unwrap();
    let options = if column == "super" { " SERIALIZETOJSON" } else { "" };
    let from = place.url(&manifest);
    let copy = format!("COPY unproven (v) FROM '{from}' IAM_ROLE '{role}' MANIFEST FORMAT AS PARQUET{options}");
    let mut answer = client.simple_query(&copy).await;
    if parse && answer.is_ok() {
        answer = client.simple_query("SELECT JSON_PARSE(v) FROM unproven").await;
    }
    client.simple_query("DROP TABLE unproven").await.unwrap();
    place.discard(&[file, manifest]).await;
    answer.map(drop)
}
