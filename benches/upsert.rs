//! Folded rows into PostgreSQL: our apply beside a hand-written binary COPY and MERGE of the same rows.
//!
//! Both sides load the same rows into equal tables, in turns, so that what the machine does besides hits both. After
//! every round the tables are compared. `cargo bench --bench upsert` prints rows per second of both and their ratio;
//! `BENCH_ROWS` and `BENCH_ROUNDS` change the size (200000 and 7).

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/it/support/postgres.rs"]
mod postgres;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use dataflow::batch::{Op, Seq, TableChanges};
use dataflow::config::PostgresWarehouse;
use dataflow::contract::{Column, Contract, TableSchema, Type};
use dataflow::epoch::{DeleteMode, LoadUnit};
use dataflow::pipeline::fold::fold;
use dataflow::progress::Partition;
use dataflow::warehouse::postgres::Postgres;
use dataflow::warehouse::{Lost, Warehouse};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// An order of a shop: nine columns and `_seq`.
fn contract() -> Arc<Contract> {
    let decimal = Type::Decimal { precision: 12, scale: 2 };
    let columns = [
        ("id", Type::BigInt),
        ("customer_id", Type::BigInt),
        ("status", Type::TEXT),
        ("email", Type::TEXT),
        ("amount", decimal),
        ("discount", decimal),
        ("created_at", Type::TimestampTz),
        ("updated_at", Type::TimestampTz),
        ("note", Type::TEXT),
    ];
    let columns = columns.map(|(name, data_type)| Column::new(name, data_type)).to_vec();
    let schema = TableSchema { columns, key: vec!["id".into()] };
    Arc::new(Contract { table: "orders".into(), version: 1, input: schema.clone(), output: schema })
}

/// `rows` orders of round `round`: half of the ids are there from the round before, half are new.
fn orders(contract: &Arc<Contract>, rows: u64, round: u64) -> TableChanges {
    let first = round * rows / 2;
    let ids = || first..first + rows;
    let big = |f: fn(u64) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(ids().map(f))) };
    let text = |f: fn(u64) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(ids().map(f))) };
    let money = |factor: i128| -> ArrayRef {
        let values = ids().map(|id| i128::from(id % 100_000) * factor);
        Arc::new(Decimal128Array::from_iter_values(values).with_precision_and_scale(12, 2).unwrap())
    };
    let time = |plus: i64| -> ArrayRef {
        let values = ids().map(|id| 1_700_000_000_000_000 + id as i64 * 1_000_003 + plus);
        Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
    };
    let columns = vec![
        big(|id| id as i64),
        big(|id| (id * 7919 % 50_000) as i64),
        text(|id| ["new", "paid", "sent", "returned"][(id % 4) as usize].to_owned()),
        text(|id| format!("customer{}@example.com", id % 50_000)),
        money(137),
        money(3),
        time(0),
        time(round as i64),
        text(|id| format!("order {id}, leave it at the door")),
    ];
    TableChanges {
        contract: Arc::clone(contract),
        partition: Partition::new("shop", "orders/0"),
        rows: RecordBatch::try_new(contract.output.arrow(), columns).unwrap(),
        ops: vec![Op::Update; rows as usize],
        seqs: ids().map(|id| Seq { major: round * rows + id, ..Seq::default() }).collect(),
        source_times_us: vec![1_700_000_000_000_000; rows as usize],
        unchanged: vec![None; contract.output.columns.len()],
        old_keys: None,
    }
}

/// What a person would write for exactly this table.
mod by_hand {
    use super::*;

    const COLUMNS: &str = "id, customer_id, status, email, amount, discount, created_at, updated_at, note, _seq";

    pub async fn create(conn: &mut PgConnection) {
        let sql = "CREATE TABLE by_hand (id bigint PRIMARY KEY, customer_id bigint, status text, email text, \
                   amount numeric(12,2), discount numeric(12,2), created_at timestamptz, updated_at timestamptz, \
                   note text, _seq text COLLATE \"C\", _synced_at timestamptz)";
        sqlx::raw_sql(sql).execute(conn).await.unwrap();
    }

    fn number(out: &mut Vec<u8>, hundredths: i128) {
        let (whole, cents) = (hundredths / 100, (hundredths % 100) as i16 * 100);
        let (high, low) = ((whole / 10_000) as i16, (whole % 10_000) as i16);
        out.extend_from_slice(&14i32.to_be_bytes());
        for part in [3i16, 1, 0, 2, high, low, cents] {
            out.extend_from_slice(&part.to_be_bytes());
        }
    }

    fn field(out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        out.extend_from_slice(bytes);
    }

    fn encode(changes: &TableChanges, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        let rows = &changes.rows;
        let big = |i: usize| rows.column(i).as_primitive::<Int64Type>().values();
        let text = |i: usize| rows.column(i).as_string::<i32>();
        let money = |i: usize| rows.column(i).as_primitive::<Decimal128Type>().values();
        let time = |i: usize| rows.column(i).as_primitive::<TimestampMicrosecondType>().values();
        let (id, customer, status, email) = (big(0), big(1), text(2), text(3));
        let (amount, discount, created, updated, note) = (money(4), money(5), time(6), time(7), text(8));
        let mut seq = [0u8; Seq::WIDTH];
        for row in range {
            out.extend_from_slice(&10i16.to_be_bytes());
            field(out, &id[row].to_be_bytes());
            field(out, &customer[row].to_be_bytes());
            field(out, status.value(row).as_bytes());
            field(out, email.value(row).as_bytes());
            number(out, amount[row]);
            number(out, discount[row]);
            field(out, &(created[row] - 946_684_800_000_000).to_be_bytes());
            field(out, &(updated[row] - 946_684_800_000_000).to_be_bytes());
            field(out, note.value(row).as_bytes());
            changes.seqs[row].write(&mut seq);
            field(out, &seq);
        }
    }

    pub async fn load(conn: &mut PgConnection, changes: &TableChanges) {
        let mut tx = conn.begin().await.unwrap();
        let stage = "CREATE TEMP TABLE stage (id bigint, customer_id bigint, status text, email text, \
                     amount numeric(12,2), discount numeric(12,2), created_at timestamptz, updated_at timestamptz, \
                     note text, _seq text COLLATE \"C\") ON COMMIT DROP";
        sqlx::raw_sql(stage).execute(&mut *tx).await.unwrap();
        let mut copy = tx.copy_in_raw(&format!("COPY stage ({COLUMNS}) FROM STDIN (FORMAT binary)")).await.unwrap();
        let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for from in (0..changes.len()).step_by(4096) {
            encode(changes, from..changes.len().min(from + 4096), &mut bytes);
            if bytes.len() >= 1 << 20 {
                copy.send(std::mem::take(&mut bytes)).await.unwrap();
            }
        }
        bytes.extend_from_slice(&[0xff, 0xff]);
        copy.send(bytes).await.unwrap();
        copy.finish().await.unwrap();
        let sets: Vec<String> = COLUMNS.split(", ").skip(1).map(|c| format!("{c} = s.{c}")).collect();
        let values: Vec<String> = COLUMNS.split(", ").map(|c| format!("s.{c}")).collect();
        let merge = format!(
            "MERGE INTO by_hand t USING stage s ON t.id = s.id \
             WHEN MATCHED AND t._seq < s._seq THEN UPDATE SET {}, _synced_at = now() \
             WHEN NOT MATCHED THEN INSERT ({COLUMNS}, _synced_at) VALUES ({}, now())",
            sets.join(", "),
            values.join(", ")
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(merge)).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The rows that only one of the two tables has.
    pub async fn differences(conn: &mut PgConnection) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM ((SELECT {COLUMNS} FROM by_hand EXCEPT SELECT {COLUMNS} FROM orders) UNION ALL \
             (SELECT {COLUMNS} FROM orders EXCEPT SELECT {COLUMNS} FROM by_hand)) d"
        );
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(conn).await.unwrap()
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

#[tokio::main]
async fn main() {
    let (rows, rounds) = (setting("BENCH_ROWS", 200_000), setting("BENCH_ROUNDS", 7));
    let url = postgres::server().database().await;
    let config = PostgresWarehouse { url: url.clone(), schema: "public".into() };
    let warehouse = Postgres::connect(&config, "bench").await.unwrap();
    let mut conn = PgConnection::connect(&url).await.unwrap();
    let contract = contract();
    warehouse.ensure_or(&contract, DeleteMode::Hard, Lost::Park).await.unwrap();
    by_hand::create(&mut conn).await;
    let (mut ours, mut hand) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let changes = orders(&contract, rows, round);
        let load = fold(&contract, DeleteMode::Hard, vec![changes.clone()], false).unwrap();
        let unit = LoadUnit {
            group: "orders".into(),
            log: Uuid::nil(),
            after: round,
            through: round + 1,
            held: BTreeMap::new(),
            held_before: BTreeMap::new(),
            tables: vec![load],
        };
        // Who comes first alternates.
        for turn in 0..2 {
            let start = Instant::now();
            if (turn + round) % 2 == 0 {
                warehouse.apply(&unit).await.unwrap();
                ours.push(start.elapsed());
            } else {
                by_hand::load(&mut conn, &changes).await;
                hand.push(start.elapsed());
            }
        }
        assert_eq!(by_hand::differences(&mut conn).await, 0, "the tables differ after round {round}");
    }
    let (ours, hand) = (median(ours), median(hand));
    println!("{rows} rows a round, {rounds} rounds, medians");
    println!("ours:         {:>9.0} rows/s", rows as f64 / ours);
    println!("COPY + MERGE: {:>9.0} rows/s", rows as f64 / hand);
    println!("ratio:        {:>9.2} (at least 0.85 wanted)", hand / ours);
}
