//! Keys that are updated, and tables that have none.

use super::*;

#[test]
fn a_key_update_is_one_move_wherever_batches_end() {
    let records = moved(1, 2, PARTIAL);
    for cuts in [vec![], vec![1], vec![2], vec![1, 2]] {
        let mut d = decoder(vec![route()]);
        learned(&mut d);
        let mut out = Vec::new();
        let mut account = [0; 3];
        let mut at = 10;
        let mut from = 0;
        for cut in cuts.iter().copied().chain([records.len()]) {
            let batch = d.decode(&raw(10 + from as u64, Some(STREAM), &records[from..cut])).unwrap();
            assert!(batch.account.balances());
            assert_eq!(batch.span.from, Position::offset(at), "spans join on");
            at = batch.span.to.as_offset().unwrap();
            out.extend(rows(&batch));
            for (sum, part) in account.iter_mut().zip([batch.account.rows, batch.account.merged, batch.account.control])
            {
                *sum += part;
            }
            for changes in &batch.tables {
                assert_eq!(changes.seqs[0].major, 12, "the create's place");
            }
            from = cut;
        }
        assert_eq!((out, account, at), (vec!["m id=2 t=~ old=1".to_owned()], [1, 1, 1], 13), "{cuts:?}");
        assert!(d.flush(&Partition::new("shop", "p/0")).unwrap().is_none());
    }
}

#[test]
fn half_a_move_is_a_delete_or_is_refused() {
    let partition = Partition::new("shop", "p/0");
    let records = moved(1, 2, PARTIAL);
    let mut d = decoder(vec![route()]);
    learned(&mut d);
    let batch = d.decode(&raw(10, Some(STREAM), &records[..2])).unwrap();
    assert_eq!((batch.account.read, batch.span.to.clone()), (0, Position::offset(10)));
    let flushed = d.flush(&partition).unwrap().unwrap();
    assert_eq!(rows(&flushed), ["d id=1 t=null"]);
    assert_eq!((flushed.span.from, flushed.span.to), (Position::offset(10), Position::offset(12)));
    assert_eq!((flushed.account.read, flushed.account.control), (2, 1));
    // Its create comes alone: without its base it is incomplete; a whole one is a row.
    let whole = r#"{"id":2,"t":"y"}"#;
    let batch = d.decode(&raw(12, Some(STREAM), &[records[2].clone(), moved(1, 2, whole)[2].clone()])).unwrap();
    assert_eq!((batch.rejects[0].rule.as_str(), batch.account.rejected), ("incomplete", 1));
    assert_eq!(rows(&batch), ["x id=2 t=null", "c id=2 t=y"]);
    // The halves of two different moves are not one move.
    let batch =
        d.decode(&raw(14, Some(STREAM), &[records[0].clone(), moved(7, 8, r#"{"id":8,"t":"z"}"#)[2].clone()])).unwrap();
    assert_eq!(rows(&batch), ["d id=1 t=null", "c id=8 t=z"]);
    // A reset forgets what is kept back.
    d.decode(&raw(16, Some(STREAM), &records[..1])).unwrap();
    d.reset(&partition, &Progress::default());
    assert!(d.flush(&partition).unwrap().is_none());
}

fn at(lsn: u64, row: &str) -> Rec {
    keyless(&envelope("c", "null", row).replace(r#"[\"10\",\"20\"]"#, &format!(r#"[\"{lsn}\",\"{lsn}\"]"#)))
}

#[test]
fn tables_without_a_key_take_each_event_once() {
    let e = |n: u64| at(n, &format!(r#"{{"n":{n}}}"#));
    let partition = Partition::new("shop", "p/0");
    let all = [e(1), e(2), e(3), e(2), e(3), e(4)];
    for cut in 0..=all.len() {
        let mut d = decoder(vec![route()]);
        let first = d.decode(&raw(0, Some(STREAM), &all[..cut])).unwrap();
        // A restart in between: the mark comes from the log.
        let mut d = decoder(vec![route()]);
        let mut log = Progress::default();
        let (position, mark) = (first.span.to.clone(), first.mark.clone());
        log.set(partition.clone(), Standing { position, generation: 1, mark });
        d.reset(&partition, &log);
        d.adopt(&first.tables.iter().map(|t| t.contract.clone()).collect::<Vec<_>>()).unwrap();
        let second = d.decode(&raw(cut as u64, Some(STREAM), &all[cut..])).unwrap();
        let rows: Vec<_> = rows(&first).into_iter().chain(rows(&second)).collect();
        assert_eq!(rows, ["c n=1", "c n=2", "c n=3", "c n=4"], "{cut}");
        assert_eq!(first.account.redelivered + second.account.redelivered, 2);
    }
    let mut d = decoder(vec![route()]);
    let batch = decode(
        &mut d,
        &[e(1), keyless(&envelope("d", r#"{"n":1}"#, "null")), keyless(&envelope("u", "null", r#"{"n":1}"#))],
    );
    assert_eq!((batch.account.rows, batch.account.rejected), (1, 2));
    assert!(batch.rejects[0].reason.contains("`key:`"));
}

#[test]
fn a_source_that_goes_back_hands_out_the_kept_half_again() {
    let mut d = decoder(vec![route()]);
    learned(&mut d);
    let records = moved(1, 2, PARTIAL);
    d.decode(&raw(10, Some(STREAM), &records[..1])).unwrap();
    let batch = d.decode(&raw(10, Some(STREAM), &records)).unwrap();
    assert_eq!((rows(&batch), batch.account.read), (vec!["m id=2 t=~ old=1".to_owned()], 3));
    assert_eq!(batch.span.from, Position::offset(10));
}
