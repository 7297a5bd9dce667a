//! Events of the binary log, from a file's first byte on.

#![no_main]

use std::collections::HashMap;

use dataflow::wire::binlog::{BinlogFile, Body, EventReader, shape};
use dataflow::wire::mysqltype::Form;
use libfuzzer_sys::fuzz_target;

type Forms = HashMap<u64, Vec<Form>>;

fn take(body: &Body<'_>, reader: &EventReader, forms: &mut Forms) {
    match body {
        Body::TableMap(map) => {
            if let Ok(map) = map.parse_columns() {
                let _shape = shape(&map, None);
                let known = map.columns.iter().filter_map(|column| Form::of(column.code, column.meta));
                forms.insert(map.table_id, known.collect());
            }
        }
        Body::Rows(rows) => {
            let known = forms.get(&rows.table_id).map(Vec::as_slice).unwrap_or_default();
            if let Ok(split) = rows.split(known) {
                split.for_each(drop);
            }
        }
        Body::Payload(payload) => {
            let Ok(mut events) = payload.events() else { return };
            while let Ok(Some(bytes)) = events.next_event() {
                if let Ok(inner) = reader.read_inner(bytes) {
                    take(&inner.body, reader, forms);
                }
            }
        }
        _ => {}
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = BinlogFile::new(bytes) else { return };
    let mut forms = Forms::new();
    while let Some((_, event)) = file.next_event() {
        if let Ok(event) = event {
            take(&event.body, file.reader(), &mut forms);
        }
    }
});
