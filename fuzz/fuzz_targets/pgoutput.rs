//! Messages of PostgreSQL's logical replication.

#![no_main]

use dataflow::wire::pgoutput::{Message, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for streaming in [false, true] {
        if let Ok(Message::Insert { new, .. }) = parse(bytes, streaming) {
            assert_eq!(new.iter().count(), new.len());
        }
    }
});
