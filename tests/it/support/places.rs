//! The named places at which the process can be killed: `dataflow::failpoint`.

#![allow(dead_code, reason = "a tool box: a build without some connectors uses less of it")]

use std::collections::BTreeSet;
use std::path::Path;

/// Places before and after every durable step, which every kind of source passes. The first four are passed only once,
/// when the lake is made.
pub const PLACES: [&str; 16] = [
    "log.identity.before",
    "log.identity.after",
    "log.probe.before",
    "log.probe.after",
    "lake.upload.before",
    "lake.upload.after",
    "log.put.before",
    "log.put.after",
    "release.before",
    "release.after",
    "warehouse.copy.before",
    "warehouse.copy.after",
    "warehouse.ledger.before",
    "warehouse.ledger.after",
    "warehouse.commit.before",
    "warehouse.commit.after",
];

/// Those that are passed again and again.
pub fn passed_again() -> &'static [&'static str] {
    &PLACES[4..]
}

/// The places in the code below a folder, whatever they are today.
pub fn places_in(folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.split("failpoint::hit(\"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(names.map(str::to_owned));
        }
    }
    assert!(!found.is_empty());
    found
}
