use proptest::prelude::*;

use super::*;

/// A message in parts.
fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![tag];
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

fn text(value: &[u8]) -> Vec<u8> {
    [&b"t"[..], &(value.len() as u32).to_be_bytes(), value].concat()
}

#[test]
fn a_transaction_is_read() {
    let begin = message(b'B', &[&5u64.to_be_bytes(), &0i64.to_be_bytes(), &7u32.to_be_bytes()]);
    let expected = Message::Begin { commit: Lsn(5), time_us: EPOCH_US, xid: 7 };
    assert_eq!(parse(&begin, false), Ok(expected));
    let commit = message(b'C', &[&[0], &5u64.to_be_bytes(), &9u64.to_be_bytes(), &1i64.to_be_bytes()]);
    let expected = Message::Commit { commit: Lsn(5), end: Lsn(9), time_us: EPOCH_US + 1 };
    assert_eq!(parse(&commit, false), Ok(expected));
    let columns = [&[1][..], b"id\0", &23u32.to_be_bytes(), &(-1i32).to_be_bytes()].concat();
    let relation = message(b'R', &[&3u32.to_be_bytes(), b"s\0t\0d", &1u16.to_be_bytes(), &columns]);
    let Message::Relation(read) = parse(&relation, false).unwrap() else { panic!("a relation") };
    assert_eq!((read.schema, read.name, read.identity), ("s", "t", b'd'));
    assert_eq!(read.columns, [RelationColumn { key: true, name: "id", type_id: 23, modifier: -1 }]);
}

#[test]
fn an_update_keeps_its_old_key_and_what_is_unchanged() {
    let old = [&2u16.to_be_bytes()[..], &text(b"1"), b"n"].concat();
    let new = [&2u16.to_be_bytes()[..], &text(b"2"), b"u"].concat();
    let update = message(b'U', &[&3u32.to_be_bytes(), b"K", &old, b"N", &new]);
    let Message::Update { old: Some(Old::Key(old)), new, .. } = parse(&update, false).unwrap() else {
        panic!("an update with its old key")
    };
    assert_eq!(old.iter().collect::<Vec<_>>(), [Datum::Text(b"1"), Datum::Null]);
    assert_eq!(new.iter().collect::<Vec<_>>(), [Datum::Text(b"2"), Datum::Unchanged]);
}

#[test]
fn streamed_messages_carry_their_transaction() {
    let start = message(b'S', &[&9u32.to_be_bytes(), &[1]]);
    assert_eq!(parse(&start, false), Ok(Message::StreamStart { xid: 9, first: true }));
    let tuple = [&1u16.to_be_bytes()[..], b"n"].concat();
    let insert = message(b'I', &[&10u32.to_be_bytes(), &3u32.to_be_bytes(), b"N", &tuple]);
    assert!(matches!(parse(&insert, true), Ok(Message::Insert { xid: Some(10), relation: 3, .. })));
    for more in [vec![], vec![0; 16]] {
        let abort = message(b'A', &[&9u32.to_be_bytes(), &10u32.to_be_bytes(), &more]);
        assert_eq!(parse(&abort, false), Ok(Message::StreamAbort { xid: 9, subxid: 10 }));
    }
    let commit =
        message(b'c', &[&9u32.to_be_bytes(), &[0], &5u64.to_be_bytes(), &6u64.to_be_bytes(), &0i64.to_be_bytes()]);
    let expected = Message::StreamCommit { xid: 9, commit: Lsn(5), end: Lsn(6), time_us: EPOCH_US };
    assert_eq!(parse(&commit, false), Ok(expected));
    assert_eq!(parse(b"E", true), Ok(Message::StreamStop));
}

#[test]
fn truncates_and_logical_messages_are_read() {
    let truncate = message(b'T', &[&2u32.to_be_bytes(), &[3], &7u32.to_be_bytes(), &8u32.to_be_bytes()]);
    let expected = Message::Truncate { xid: None, relations: vec![7, 8], cascade: true, restart_identity: true };
    assert_eq!(parse(&truncate, false), Ok(expected));
    assert!(
        matches!(parse(&truncate_message(&[7]), false), Ok(Message::Truncate { relations, .. }) if relations == [7])
    );
    let logical = message(b'M', &[&[1], &4u64.to_be_bytes(), b"p\0", &2u32.to_be_bytes(), b"ab"]);
    let expected = Message::Logical { xid: None, transactional: true, lsn: Lsn(4), prefix: "p", content: b"ab" };
    assert_eq!(parse(&logical, false), Ok(expected));
    assert_eq!(
        parse(&message(b'O', &[&4u64.to_be_bytes(), b"elsewhere\0"]), false),
        Ok(Message::Origin { name: "elsewhere" })
    );
}

#[test]
fn what_is_no_message_is_said() {
    assert_eq!(parse(b"P....", false), Err(Malformed::TwoPhase('P')));
    assert_eq!(parse(b"?", false), Err(Malformed::Unknown('?')));
    assert_eq!(parse(b"", false), Err(Malformed::Short));
    assert_eq!(parse(b"E!", false), Err(Malformed::Long(1)));
    assert_eq!(parse(&message(b'T', &[&u32::MAX.to_be_bytes(), &[0]]), false), Err(Malformed::Short));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(tag in proptest::sample::select(b"BCORYIUDTMSEcAbPKrp?".to_vec()),
                                     rest in proptest::collection::vec(any::<u8>(), 0..200), streaming: bool) {
        let bytes = message(tag, &[&rest]);
        if let Ok(Message::Insert { new, .. } | Message::Update { new, .. }) = parse(&bytes, streaming) {
            prop_assert_eq!(new.iter().count(), new.len());
        }
    }

    #[test]
    fn the_relation_of_a_row_is_that_of_the_whole_message(tag in proptest::sample::select(b"IUDRT".to_vec()), id: u32,
                                                         kind in proptest::sample::select(b"NKO".to_vec())) {
        let empty = [0, 0];
        let new: &[u8] = if tag == b'U' && kind != b'N' { b"N\0\0" } else { b"" };
        let bytes = message(tag, &[&id.to_be_bytes(), &[kind], &empty, new]);
        let expected = match parse(&bytes, false) {
            Ok(Message::Insert { relation, .. } | Message::Delete { relation, .. }) => Some(relation),
            Ok(Message::Update { relation, old: None | Some(Old::Full(_)), .. }) => Some(relation),
            _ => None,
        };
        prop_assert_eq!(relation_of_row(&bytes), expected);
    }

    #[test]
    fn written_inserts_are_read_back(rows in proptest::collection::vec(
        proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)), 0..10), 1..5))
    {
        for row in &rows {
            // Behind what is there already.
            let mut bytes = b"before".to_vec();
            let mut writer = InsertWriter::new(&mut bytes, 42);
            for value in row {
                match value {
                    None => writer.null(),
                    Some(value) => writer.text(value),
                }
            }
            writer.finish();
            let Ok(Message::Insert { relation: 42, new, .. }) = parse(&bytes[6..], false) else {
                return Err(TestCaseError::fail("an insert"));
            };
            let read: Vec<_> = new.iter().collect();
            let expected: Vec<_> =
                row.iter().map(|v| v.as_deref().map_or(Datum::Null, Datum::Text)).collect();
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn lsn_text_round_trips(lsn: u64) {
        prop_assert_eq!(Lsn(lsn).to_string().parse(), Ok(Lsn(lsn)));
    }
}
