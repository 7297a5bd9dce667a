//! GIVEN a column that the source has added and dropped, WHEN rows without it come from before and from after, THEN the
//! old ones are null there and the new ones are a mismatch.

use dataflow::progress::{Progress, Standing};
use proptest::prelude::*;

use super::*;

/// An event at `lsn`, in second `lsn`; without positions when `lsn` is odd out of `positions`.
fn event(lsn: u64, positions: bool, row: &str) -> Rec {
    let text = envelope("u", "null", row).replace("1700000000000123", &format!("{}", 1_700_000_000_000_000 + lsn));
    let sequence = r#""sequence":"[\"10\",\"20\"]""#;
    let here = if positions { format!(r#""sequence":"[\"{lsn}\",\"{lsn}\"]""#) } else { r#""sequence":null"#.into() };
    let id: serde_json::Value = serde_json::from_str(row).unwrap();
    rec(&format!(r#"{{"id":{}}}"#, id["id"]), &text.replace(sequence, &here))
}

fn partition(number: usize) -> Partition {
    Partition::new("shop", format!("p/{number}"))
}

/// A stream of several partitions, its decoder, and what the log would know of it.
struct Stream {
    route: TableRoute,
    decoder: DebeziumJson,
    log: Progress,
    contract: Option<Arc<Contract>>,
    offsets: BTreeMap<usize, u64>,
}

impl Stream {
    fn new(route: TableRoute) -> Self {
        let decoder = decoder(vec![route.clone()]);
        Self { route, decoder, log: Progress::default(), contract: None, offsets: BTreeMap::new() }
    }

    /// Another process goes on where the log stands.
    fn restart(&mut self) {
        self.decoder = decoder(vec![self.route.clone()]);
        self.decoder.adopt(self.contract.as_slice()).unwrap();
        for number in self.offsets.keys() {
            self.decoder.reset(&partition(*number), &self.log);
        }
    }

    fn send(&mut self, number: usize, records: &[Rec]) -> ChangeBatch {
        let next = self.offsets.entry(number).or_insert_with(|| {
            self.decoder.reset(&partition(number), &self.log);
            0
        });
        let batch = RawBatch { partition: partition(number), ..raw(*next, Some(STREAM), records) };
        *next += records.len() as u64;
        let batch = self.decoder.decode(&batch).unwrap();
        let (position, mark) = (batch.span.to.clone(), batch.mark.clone());
        self.log.set(partition(number), Standing { position, generation: 1, mark });
        if let Some(rows) = batch.tables.last() {
            self.contract = Some(rows.contract.clone());
        }
        batch
    }
}

const BEFORE: &str = r#"{"id":1,"name":"a"}"#;
const WITH: &str = r#"{"id":1,"name":"b","note":"n"}"#;
const AFTER: &str = r#"{"id":1,"name":"c"}"#;

fn refused(batch: &ChangeBatch) -> Vec<&str> {
    batch.rejects.iter().map(|reject| reject.reason.as_str()).collect()
}

#[test]
fn a_dropped_column_is_a_mismatch_also_after_a_restart() {
    for positions in [true, false] {
        let event = |lsn, row| event(lsn, positions, row);
        let mut stream = Stream::new(route());
        let batch = stream.send(0, &[event(10, BEFORE), event(20, WITH), event(30, AFTER)]);
        assert_eq!(rows(&batch), ["u id=1 name=a", "u id=1 name=b note=n", "x id=1 name=null note=null"]);
        assert_eq!(
            refused(&batch),
            [
                "column `note` is gone: older rows had it, this one does not; if the source has dropped or renamed it, list \
              it in the table's `gone:` ([note]) or set `on_mismatch: ignore`, and retry the row: it will be null"
            ]
        );
        assert_eq!((batch.rejects[0].rule.as_str(), batch.rejects[0].table.as_deref()), ("contract", Some("orders")));
        stream.restart();
        let batch = stream.send(0, &[event(40, AFTER), event(20, WITH)]);
        assert_eq!(rows(&batch), ["x id=1 name=null note=null", "u id=1 name=b note=n"]);
        assert_eq!(batch.account.rejected, 1);
    }
}

#[test]
fn a_column_that_was_not_there_yet_is_null() {
    for positions in [true, false] {
        let event = |lsn, row| event(lsn, positions, row);
        let mut stream = Stream::new(route());
        stream.send(0, &[event(20, WITH)]);
        // Old events delivered again, before and after a restart, and another partition that lags behind.
        let old = ["u id=1 name=a note=null"];
        assert_eq!(rows(&stream.send(0, &[event(10, BEFORE)])), old);
        stream.restart();
        assert_eq!(rows(&stream.send(0, &[event(10, BEFORE)])), old);
        assert_eq!(rows(&stream.send(1, &[event(11, BEFORE)])), old);
        assert_eq!(rows(&stream.send(1, &[event(21, WITH)])), ["u id=1 name=b note=n"]);
        assert_eq!(stream.send(1, &[event(31, AFTER)]).account.rejected, 1);
    }
}

#[test]
fn a_new_partition_knows_what_the_others_have_shown() {
    let mut stream = Stream::new(route());
    stream.send(0, &[event(20, true, WITH)]);
    for (number, restart) in [(1, false), (2, true)] {
        if restart {
            stream.restart();
        }
        let batch = stream.send(number, &[event(10, true, BEFORE), event(30, true, AFTER)]);
        assert_eq!((rows(&batch).remove(0).as_str(), batch.account.rejected), ("u id=1 name=a note=null", 1));
    }
    // The log keeps it once, with the partition that showed it.
    let mark = |number| stream.log.get(&partition(number)).and_then(|standing| standing.mark.clone());
    assert!(mark(0).is_some_and(|mark| mark.contains("note")));
    assert!(!mark(1).is_some_and(|mark| mark.contains("note")) && !mark(2).is_some_and(|mark| mark.contains("note")));
    stream.restart();
    assert_eq!(stream.send(2, &[event(31, true, AFTER)]).account.rejected, 1);
}

#[test]
fn two_processes_learn_at_once_and_one_goes_on_alone() {
    let (with_a, with_b) = (r#"{"id":1,"a":"x"}"#, r#"{"id":2,"b":"y"}"#);
    let (mut one, mut two) = (Stream::new(route()), Stream::new(route()));
    one.send(0, &[event(20, true, with_a)]);
    // The source has dropped `a` and added `b`; this process has not seen `a`.
    two.send(1, &[event(30, true, with_b)]);
    // Both have committed: the later one's contract was joined with the earlier one's.
    one.decoder.adopt(two.contract.as_slice()).unwrap();
    two.log.set(partition(0), one.log.get(&partition(0)).cloned().unwrap());
    // Columns that only the other one has shown are not missed, old or new.
    let batch = one.send(0, &[event(21, true, with_a)]);
    assert_eq!(rows(&batch), ["u id=1 b=null a=x"]);
    two.decoder.adopt(one.contract.as_slice()).unwrap();
    assert_eq!(rows(&two.send(1, &[event(31, true, with_b)])), ["u id=2 b=y a=null"]);
    // The first one dies: its partition is handed over, and with it what it has shown.
    two.log.set(partition(0), one.log.get(&partition(0)).cloned().unwrap());
    two.offsets.insert(0, one.offsets[&0]);
    two.decoder.reset(&partition(0), &two.log);
    let batch = two.send(0, &[event(15, true, r#"{"id":1}"#), event(32, true, with_b)]);
    assert_eq!(rows(&batch), ["u id=1 b=null a=null", "x id=2 b=null a=null"]);
    assert!(refused(&batch)[0].starts_with("column `a` is gone"), "{:?}", refused(&batch));
}

#[test]
fn without_times_and_positions_the_order_of_delivery_tells() {
    let flat = |row: &str| rec(r#"{"id":1}"#, row);
    let mut stream = Stream::new(route());
    let batch = stream.send(0, &[flat(BEFORE), flat(WITH), flat(AFTER)]);
    assert_eq!((batch.account.rows, batch.account.rejected), (2, 1));
    assert_eq!(stream.send(1, &[flat(BEFORE)]).account.rows, 1, "another partition says nothing");
    // Read in again from quarantine: what was delivered before the column is still older than it.
    let raw = raw(0, Some(STREAM), &[flat(BEFORE), flat(WITH), flat(AFTER)]);
    stream.decoder.revisit(&partition(0), &stream.log);
    let batch = stream.decoder.decode(&raw).unwrap();
    assert_eq!((batch.account.rows, batch.rejects[0].seq.major), (2, 2));
}

#[test]
fn a_renamed_column_is_refused_and_the_new_name_told() {
    let mut stream = Stream::new(route());
    let renamed = r#"{"id":1,"name":"c","remark":"n"}"#;
    let batch = stream.send(0, &[event(20, true, WITH), event(30, true, renamed)]);
    assert!(refused(&batch)[0].contains("`note` is gone") && refused(&batch)[0].contains("new is `remark`"));
    // Two at once are told at once.
    let batch = stream.send(0, &[event(40, true, r#"{"id":1}"#)]);
    assert!(refused(&batch)[0].contains("columns `name`, `note` are gone"), "{}", refused(&batch)[0]);
}

#[test]
fn a_drop_that_a_person_has_taken_is_null() {
    let events = [event(20, true, WITH), event(30, true, AFTER)];
    let mut file = contract(&[("id", "bigint"), ("name", "text")], &[]);
    file.learn = false;
    let taken = [
        TableRoute { on_mismatch: OnMismatch::Ignore, ..route() },
        TableRoute { gone: vec!["note".into()], ..route() },
        TableRoute { contract: Some(file), ..route() },
    ];
    for route in taken {
        let mut stream = Stream::new(super::route());
        let refused = stream.send(0, &events).rejects;
        // The topology is corrected, and the row retried from quarantine.
        stream.route = route;
        stream.restart();
        stream.decoder.revisit(&partition(0), &stream.log);
        let retried = stream.decoder.decode(&raw(refused[0].seq.major, Some(STREAM), &events[1..])).unwrap();
        assert_eq!(rows(&retried), ["u id=1 name=c note=null"]);
        stream.restart();
        assert_eq!(rows(&stream.send(0, &events[1..])), ["u id=1 name=c note=null"]);
    }
}

#[test]
fn a_column_comes_back() {
    let mut stream = Stream::new(TableRoute { on_mismatch: OnMismatch::Ignore, ..route() });
    stream.send(0, &[event(20, true, WITH), event(30, true, AFTER), event(40, true, WITH)]);
    stream.route.on_mismatch = OnMismatch::Quarantine;
    stream.restart();
    assert_eq!(rows(&stream.send(0, &[event(30, true, AFTER)])), ["u id=1 name=c note=null"], "taken before");
    assert_eq!(stream.send(0, &[event(50, true, AFTER)]).account.rejected, 1);
}

#[test]
fn a_hand_written_contract_and_schema_blocks() {
    let with = with_schema(r#""type":"string""#, "u", r#"{"id":1,"v":"x"}"#);
    let without = with.replacen(r#",{"type":"string","optional":true,"field":"v"}"#, "", 2);
    let without = without.replace(r#","v":"x""#, "").replace("1700000000000123", "1700000000000999");
    let without = without.replace(r#"[\"10\",\"20\"]"#, r#"[\"10\",\"21\"]"#);
    assert!(!without.contains(r#""v""#), "{without}");
    let file = contract(&[("id", "int"), ("v", "text"), ("never", "text")], &[]);
    let mut stream = Stream::new(TableRoute { contract: Some(file), ..route() });
    let key = r#"{"id":1}"#;
    let batch = stream.send(0, &[rec(key, &with), rec(key, &without)]);
    assert_eq!(rows(&batch)[0], "u id=1 v=x never=null", "a declared column that never came is null");
    assert!(refused(&batch)[0].starts_with("column `v` is gone"), "{:?}", refused(&batch));
}

#[test]
fn tables_merged_into_one_stream_may_differ() {
    let mut stream = Stream::new(route());
    let other = Rec {
        value: event(30, true, AFTER).value.map(|v| v.replace(r#""db":"shop","#, r#""db":"shop2","#)),
        ..event(30, true, AFTER)
    };
    let other = Rec { value: other.value.map(|v| v.replace(r#""name":"shop""#, r#""name":"shop2""#)), ..other };
    let batch = stream.send(0, &[event(20, true, WITH), other]);
    assert_eq!(rows(&batch), ["u id=1 name=b note=n", "u id=1 name=c note=null"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// One column lives from `added` to `dropped`. Whatever lags behind, is delivered again or decoded by another process:
    /// a row from before is never refused, and a row from after always is, once its partition has shown the column.
    #[test]
    fn what_was_written_before_is_taken_and_what_was_written_after_is_not(
        total in 3u64..40,
        added in 0u64..20,
        lived in 1u64..20,
        positions: bool,
        // Which partition sends how much next, how far it goes back first, whether the process changes.
        steps in proptest::collection::vec((0usize..3, 1usize..8, 0usize..4, any::<bool>()), 1..40),
    ) {
        let dropped = added + lived;
        let mut stream = Stream::new(route());
        let queues: Vec<Vec<u64>> =
            (0..3).map(|p| (1..=total).filter(|lsn| *lsn % 3 == p).collect()).collect();
        let mut at = [0usize; 3];
        let mut shown = [false; 3];
        for (number, count, back, restart) in steps {
            if restart {
                stream.restart();
            }
            at[number] = at[number].saturating_sub(back);
            for lsn in queues[number].iter().skip(at[number]).take(count) {
                let row = if (added..dropped).contains(lsn) { WITH } else { AFTER };
                let batch = stream.send(number, &[event(*lsn, positions, row)]);
                if *lsn < added {
                    prop_assert_eq!(batch.account.rows, 1, "{} is older: {:?}", lsn, refused(&batch));
                } else if row == WITH {
                    shown[number] = true;
                    prop_assert_eq!(batch.account.rows, 1);
                } else if shown[number] {
                    prop_assert_eq!(batch.account.rejected, 1, "{} is newer", lsn);
                }
            }
            at[number] = (at[number] + count).min(queues[number].len());
        }
    }
}
