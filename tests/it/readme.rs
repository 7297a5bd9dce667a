//! What the README says of the tests is there.

use std::path::Path;

/// The tests that a line of the tables of scenarios names: file below `tests/it/`, and function. Of two columns the second is
/// MySQL's where the first is PostgreSQL's, and beside the scenarios of Redshift Kafka's.
fn named(line: &str) -> Vec<(String, String)> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let (number, paths) = match cells[..] {
        [_, number, _, one, other, _] => {
            let (one, other) = (one.trim_matches('`'), other.trim_matches('`'));
            match one.strip_prefix("redshift_sources::postgres::") {
                Some(_) => (number, vec![one.to_owned(), format!("redshift_sources::{other}")]),
                None => (number, vec![one.to_owned(), format!("mysql_source::{other}")]),
            }
        }
        [_, number, _, test, _] => (number, vec![test.trim_matches('`').to_owned()]),
        _ => return Vec::new(),
    };
    if number.parse::<u32>().is_err() {
        return Vec::new();
    }
    paths
        .iter()
        .filter_map(|path| path.rsplit_once("::").filter(|(_, name)| !name.is_empty()))
        .map(|(module, name)| (format!("{}.rs", module.replace("::", "/")), name.to_owned()))
        .collect()
}

#[test]
fn every_scenario_that_is_listed_is_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let mut scenarios = 0;
    for line in readme.lines() {
        let tests = named(line);
        scenarios += usize::from(!tests.is_empty());
        for (file, name) in tests {
            let text = std::fs::read_to_string(root.join("tests/it").join(&file));
            let text = text.unwrap_or_else(|error| panic!("{file}: {error}: {line}"));
            assert!(text.contains(&format!("fn {name}()")), "{file} has no test {name}: {line}");
        }
    }
    assert!(scenarios >= 30, "the README lists {scenarios} scenarios");
}

/// A metric that nobody can read of is watched by nobody.
#[test]
fn every_metric_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let telemetry = std::fs::read_to_string(root.join("src/telemetry.rs")).unwrap();
    let names: Vec<&str> = telemetry
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(": &str = \"")?.1.strip_suffix("\";"))
        .collect();
    assert!(names.len() > 30, "{names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !readme.contains(&format!("`{name}"))).collect();
    assert!(missing.is_empty(), "the README does not list {missing:?}");
}
