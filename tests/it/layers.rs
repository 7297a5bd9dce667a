//! The architecture's rules, held by reading the source: layers, sizes, who may spawn, who may speak SQL.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// Modules by layer, the lowest first. A module imports only layers below its own; siblings never import each other.
const LAYERS: [&[&str]; 9] = [
    &["error", "telemetry", "failpoint"],
    &["contract", "finding", "progress"],
    &["batch"],
    &["epoch"],
    &["config", "net", "wire"],
    &["source", "decode", "operator", "lookup", "lake", "warehouse", "notify"],
    &["pipeline"],
    &["admin"],
    &["cli"],
];

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// Where tasks, threads and channels may be made: the place, what may stand there (`""`: anything), and why.
const MAY_SPAWN: [(&str, &str, &str); 9] = [
    ("src/pipeline/", "", "the only place that owns tasks and channels"),
    ("src/source/kafka/", "", "librdkafka's consumer is polled from a thread of its own"),
    ("src/source/file/", "", "files are read and decompressed on a thread of its own"),
    ("src/source/postgres/", "", "the server must be answered while ingest takes nothing"),
    ("src/source/mysql/", "", "the server's events are read on while ingest takes nothing"),
    (
        "src/lake/",
        "task::spawn_blocking",
        "disk and Parquet work leaves the runtime's threads, and is awaited in place",
    ),
    (
        "src/warehouse/redshift/",
        "task::spawn_blocking",
        "Parquet work leaves the runtime's threads, and is awaited in place",
    ),
    ("src/net/", "task::spawn_blocking", "a program that prints credentials is waited for in place"),
    ("loadtest/", "", "another program"),
];

/// Where the database client may be used.
const MAY_SPEAK_SQL: [&str; 2] = ["src/warehouse/", "loadtest/"];

/// What must give the same answer whenever it is asked.
const CLOCKLESS: [&str; 5] = ["src/operator/", "src/decode/", "src/contract/", "src/epoch/", "src/pipeline/fold"];

/// A source file with comments, texts and test code blanked out; lines stay where they are.
struct Source {
    path: String,
    code: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    folders.iter().for_each(|folder| files_below(&root().join(folder), &mut found));
    found.sort();
    assert!(!found.is_empty());
    found
}

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read_sources);

fn read_sources() -> Vec<Source> {
    rust_files(&["src", "loadtest/src"])
        .into_iter()
        .map(|path| Source {
            code: without_tests(&blank(&std::fs::read_to_string(&path).unwrap())),
            path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
        })
        .collect()
}

/// Replaces comments and the insides of texts and characters by spaces.
fn blank(text: &str) -> String {
    let literals = Regex::new(concat!(
        r###"(?s)//[^\n]*|/\*.*?\*/|\bb?r"[^"]*"|\bb?r#".*?"#|\bb?r##".*?"##|\bb?r###".*?"##\x23"###,
        r###"|b?"(?:\\.|[^"\\])*"|b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\\n])'"###
    ))
    .unwrap();
    let hide =
        |found: &regex::Captures<'_>| found[0].chars().map(|c| if c == '\n' { c } else { ' ' }).collect::<String>();
    literals.replace_all(text, hide).into_owned()
}

/// The end of the block that opens at or after `from`; or of the item, when a semicolon comes first.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (i, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return i + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return i + 1,
            _ => {}
        }
    }
    code.len()
}

fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..start]);
        rest = &rest[item_end(rest, start)..];
    }
    kept + rest
}

/// The modules of this crate that the code names: `crate::x` and `crate::{x, y::z}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for mention in Regex::new(r"\bcrate::(?:(\w+)|(\{))").unwrap().captures_iter(code) {
        if let Some(name) = mention.get(1) {
            found.insert(name.as_str().to_owned());
        } else {
            let start = mention.get(2).unwrap().start();
            let group = &code[start + 1..item_end(code, start) - 1];
            found.extend(first_names(group));
        }
    }
    found
}

/// The first name of each entry of a `use` group, whose own groups are passed over.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut entries) = (0, vec![String::new()]);
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => entries.push(String::new()),
            _ if depth == 0 => entries.last_mut().unwrap().push(character),
            _ => {}
        }
    }
    let name = |entry: &String| entry.trim().split("::").next().unwrap().trim().to_owned();
    entries.iter().map(name).filter(|name| !name.is_empty()).collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The module that a file belongs to: `src/lake/log.rs` and `src/lake.rs` both to `lake`.
fn module_of(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    below.split('/').next().unwrap().trim_end_matches(".rs")
}

/// What is wrong with what `code` in `module` imports.
fn layer_mistakes(module: &str, code: &str) -> Vec<String> {
    let Some(own) = layer(module) else { return vec![format!("module {module} stands in no layer")] };
    imports(code)
        .into_iter()
        .filter(|name| name != module)
        .filter_map(|name| match layer(&name) {
            Some(other) if other < own => None,
            Some(other) if other == own => Some(format!("{module} imports its sibling {name}")),
            Some(_) => Some(format!("{module} imports {name}, which stands above it")),
            None => Some(format!("{module} imports {name}, which stands in no layer")),
        })
        .collect()
}

fn functions(code: &str) -> Vec<Function> {
    Regex::new(r"\bfn\s+(\w+)")
        .unwrap()
        .captures_iter(code)
        .map(|found| {
            let start = found.get(0).unwrap().start();
            let end = item_end(code, start);
            Function {
                name: found[1].to_owned(),
                line: code[..start].matches('\n').count() + 1,
                lines: code[start..end].matches('\n').count() + 1,
            }
        })
        .collect()
}

/// Every place that matches `pattern`, unless `allowed(path, match)`.
fn mentions(pattern: &str, allowed: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let pattern = Regex::new(pattern).unwrap();
    let found = SOURCES.iter().flat_map(|source| pattern.find_iter(&source.code).map(|m| (&source.path, m.as_str())));
    found.filter(|(path, what)| !allowed(path, what)).map(|(path, what)| format!("{path}: {what}")).collect()
}

#[track_caller]
fn assert_none(mistakes: &[String], rule: &str) {
    assert!(mistakes.is_empty(), "{rule}:\n  {}", mistakes.join("\n  "));
}

#[test]
fn modules_import_only_layers_below() {
    let mut mistakes = Vec::new();
    for source in SOURCES.iter().filter(|s| s.path.starts_with("src/")) {
        let module = module_of(&source.path);
        if module == "lib" || module == "main" {
            continue;
        }
        mistakes.extend(layer_mistakes(module, &source.code).into_iter().map(|m| format!("{}: {m}", source.path)));
    }
    assert_none(&mistakes, "a module imports only layers below it, and never a sibling");
}

#[test]
fn main_stands_on_the_command_line_alone() {
    let main = blank(&std::fs::read_to_string(root().join("src/main.rs")).unwrap());
    let allowed = ["cli", "telemetry", "failpoint", "error"];
    let names = Regex::new(r"\bdataflow::(\w+)").unwrap();
    let mistakes: Vec<String> = names
        .captures_iter(&main)
        .map(|found| found[1].to_owned())
        .filter(|name| !allowed.contains(&name.as_str()))
        .collect();
    assert_none(&mistakes, "main.rs knows arguments, logging and the exit code");
}

#[test]
fn files_and_functions_stay_small() {
    let mut mistakes = Vec::new();
    for source in SOURCES.iter() {
        let lines = source.code.lines().count();
        if lines > FILE_LINES {
            mistakes.push(format!("{}: {lines} lines without tests, {FILE_LINES} are allowed", source.path));
        }
        let long = functions(&source.code).into_iter().filter(|f| f.lines > FUNCTION_LINES);
        mistakes.extend(long.map(|f| {
            format!("{}:{} fn {}: {} lines, {FUNCTION_LINES} are allowed", source.path, f.line, f.name, f.lines)
        }));
    }
    assert_none(&mistakes, "files and functions stay small");
}

#[test]
fn only_the_pipeline_spawns() {
    let pattern = concat!(
        r"\b(?:tokio|task|thread)::(?:spawn|spawn_blocking|spawn_local|Builder)\b|\bJoinSet::new|\bTaskTracker::new",
        r"|\b(?:mpsc|oneshot|watch|broadcast)::(?:unbounded_)?(?:sync_)?channel\b|\bunbounded_channel\("
    );
    let allowed = |path: &str, found: &str| {
        MAY_SPAWN.iter().any(|(place, what, _)| path.starts_with(place) && (what.is_empty() || *what == found))
    };
    let mistakes = mentions(pattern, allowed);
    assert_none(&mistakes, "tasks, threads and channels are made in pipeline alone (or in MAY_SPAWN, with a reason)");
}

#[test]
fn sql_stays_in_the_warehouses() {
    let mistakes = mentions(r"\bsqlx::\w+", |path, _| MAY_SPEAK_SQL.iter().any(|place| path.starts_with(place)));
    assert_none(&mistakes, "only warehouse speaks SQL to a database");
}

#[test]
fn what_must_repeat_reads_no_clock() {
    let pattern = r"\b(?:Instant|SystemTime|Utc|Local)::now\b";
    let mistakes = mentions(pattern, |path, _| !CLOCKLESS.iter().any(|place| path.starts_with(place)));
    assert_none(&mistakes, "no clock in operators, decoders, contracts, manifests and fold");
}

#[test]
fn nothing_is_put_off() {
    // Spelled apart, so that this file does not find itself.
    let pattern = Regex::new(concat!(r"(?-u)\bTO", r"DO\b|\bFIX", r"ME\b|\bX", r"XX\b")).unwrap();
    let mistakes: Vec<String> = rust_files(&["src", "loadtest", "tests", "benches"])
        .iter()
        .filter(|path| pattern.is_match(&std::fs::read_to_string(path).unwrap()))
        .map(|path| path.strip_prefix(root()).unwrap().display().to_string())
        .collect();
    assert_none(&mistakes, "what is not done is in an issue, not in a comment");
}

#[test]
fn no_module_is_a_drawer() {
    let drawers = ["utils", "util", "common", "helpers", "helper", "prelude", "misc"];
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let folder = |path: &PathBuf| path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let mistakes: Vec<String> = rust_files(&["src", "loadtest/src"])
        .iter()
        .filter(|path| drawers.contains(&stem(path).as_str()) || drawers.contains(&folder(path).as_str()))
        .map(|path| path.display().to_string())
        .collect();
    assert_none(&mistakes, "a module is named for what it owns");
}

mod the_reader_itself {
    use super::*;

    #[test]
    fn sees_imports_in_every_form() {
        let code = blank(
            "use crate::batch::Op; use crate::{error::{Error, Result}, lake::Log};\n\
             // crate::cli\n fn f() -> crate::config::Span { let s = \"crate::admin\"; let c = '{'; g::<'_'>(s, c) }",
        );
        assert_eq!(imports(&code).into_iter().collect::<Vec<_>>(), ["batch", "config", "error", "lake"]);
    }

    #[test]
    fn sees_every_wrong_direction() {
        assert_eq!(layer_mistakes("batch", "use crate::epoch::Account;").len(), 1);
        assert_eq!(layer_mistakes("lake", "use crate::warehouse::X;"), ["lake imports its sibling warehouse"]);
        assert_eq!(layer_mistakes("lake", "use crate::nowhere::X;").len(), 1);
        assert!(layer_mistakes("lake", "use crate::lake::log::Log; use crate::config::Lake;").is_empty());
    }

    #[test]
    fn leaves_test_code_out_and_measures_the_rest() {
        let text = "fn one() {\n  \"}\";\n}\n#[cfg(test)]\nmod tests {\n  use crate::cli::X;\n}\nfn two();\n";
        let code = without_tests(&blank(text));
        assert!(imports(&code).is_empty());
        let found = functions(&code);
        assert_eq!(found.iter().map(|f| (f.name.as_str(), f.lines)).collect::<Vec<_>>(), [("one", 3), ("two", 1)]);
    }

    #[test]
    fn lifetimes_are_not_characters() {
        let code = blank("fn f<'a>(x: &'a str) -> &'a str { match c { '\\'' => 1, '\"' => 2, _ => 3 } }");
        assert!(code.contains("&'a str) -> &'a str {") && !code.contains('"'));
    }
}
