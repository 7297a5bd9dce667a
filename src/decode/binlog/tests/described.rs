//! What records are read by, when it came before them.

use super::*;

/// GIVEN a table that events and a query's rows name by two numbers, THEN what is refused is told by its own description,
/// and an epoch that begins with either needs the one that it is read by.
#[test]
fn two_numbers_of_one_table_are_two_descriptions() {
    let span = Span { from: Position("a".into()), to: Position("b".into()) };
    let raw = |records| RawBatch {
        partition: Partition::new("s", "binlog"),
        generation: 0,
        span: span.clone(),
        stream: None,
        records,
        inside_transaction: false,
    };
    let (first, second) = (described(columns()), {
        let shape = TableShape { id: TABLE + 1, name: "shop.t".into(), columns: columns() };
        describe_key(&shape)
    });
    let refused = row(b'c', 3, &[7], &[0]);
    let mut decoder = decoder(None);
    let mut records = RawRecords::default();
    records.push_within(1, (1, 0), 1, Some(&first), None);
    records.push_within(1, (2, 0), 1, Some(&second), None);
    records.push_within(1, (3, 0), 1, None, Some(&refused));
    let batch = decoder.decode(&raw(records)).unwrap();
    let told = |batch: &ChangeBatch| {
        let reject = batch.rejects[0].seq;
        batch.described.iter().rev().find(|known| known.from <= reject).map(|known| known.text.to_vec())
    };
    assert_eq!((told(&batch), batch.read_by.own.clone()), (Some(first.clone()), vec![TABLE, TABLE + 1]));
    let mut records = RawRecords::default();
    records.push_within(1, (4, 0), 1, None, Some(&refused));
    let batch = decoder.decode(&raw(records)).unwrap();
    let earlier = vec![(TABLE, Arc::from(first.as_slice()))];
    assert_eq!((told(&batch), &batch.read_by.earlier), (Some(first.clone()), &earlier));
    // The same for a process that begins there.
    let mut records = RawRecords::default();
    records.recall(vec![first.as_slice().into()]);
    records.push_within(1, (4, 0), 1, None, Some(&row(b'c', 3, &[7], &whole(1, b"a", 5))));
    let batch = super::decoder(None).decode(&raw(records)).unwrap();
    assert_eq!((batch.account.read, batch.account.rows, &batch.read_by.earlier), (1, 1, &earlier));
}
