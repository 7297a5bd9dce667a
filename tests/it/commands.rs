//! The real program: what it prints and how it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn dataflow(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dataflow"));
    command.args(arguments).env_remove("FAILPOINTS").env_remove("RUST_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn topology(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("shop.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

const RIGHT: &str = r#"version: 1
name: shop
sources:
  files: { kind: file, path: events/ }
tables:
  orders: { from: shop.public.orders }
lake: { url: ./data/lake }
warehouse: { kind: sqlite, path: ./data/warehouse.db }
"#;

#[test]
fn a_right_topology_is_said_to_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = topology(folder.path(), RIGHT);
    let outcome = dataflow(&["check", path.to_str().unwrap()]);
    assert_eq!(outcome.status.code(), Some(0), "{}", text(&outcome.stderr));
    let expected = format!("{}: `shop` is right: 1 source, 1 table (1 learned from the stream)\n", path.display());
    assert_eq!(text(&outcome.stdout), expected);
    let quiet = dataflow(&["check", path.to_str().unwrap(), "--json"]);
    assert_eq!((quiet.status.code(), quiet.stdout.len()), (Some(0), 0));
}

#[test]
fn mistakes_end_with_2_and_are_all_printed_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = topology(folder.path(), &RIGHT.replace("from:", "form:").replace("version: 1", "version: 9"));
    let name = path.to_str().unwrap();
    let outcome = dataflow(&["check", name]);
    assert_eq!(outcome.status.code(), Some(2));
    let expected = format!(
        "{name}:1:10: error: version 9 is not known\n 1 | version: 9\n   |          ^\n  help: this program reads version 1\n\n\
         {name}:6:13: error: unknown field `form`\n 6 |   orders: {{ form: shop.public.orders }}\n   |             ^^^^\n  help: did you mean `from`?\n\n\
         2 mistakes; nothing was started\n"
    );
    assert_eq!(text(&outcome.stderr), expected);
    let outcome = dataflow(&["check", name, "--json"]);
    assert_eq!(outcome.status.code(), Some(2));
    let lines: Vec<serde_json::Value> =
        text(&outcome.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["line"], &lines[1]["column"]), (&6.into(), &13.into()));
    assert_eq!(lines[1]["path"], "tables.orders.form");
}

#[test]
fn every_command_refuses_a_wrong_topology_before_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = topology(folder.path(), &RIGHT.replace("name: shop", "name: ''"));
    let name = path.to_str().unwrap();
    let commands: [&[&str]; 8] = [
        &["run", name],
        &["plan", name],
        &["status", name],
        &["table", "pause", name, "orders"],
        &["quarantine", "list", name],
        &["replay", name, "--from", "1"],
        &["reprocess", name, "--from-lake", "elsewhere"],
        &["check", name, "--set", "version=3"],
    ];
    for arguments in commands {
        let outcome = dataflow(arguments);
        assert_eq!(outcome.status.code(), Some(2), "{arguments:?}: {}", text(&outcome.stderr));
        assert!(text(&outcome.stderr).contains(":2:7: error: the name is empty"), "{arguments:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn an_unknown_table_is_the_users_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = topology(folder.path(), RIGHT);
    let outcome = dataflow(&["table", "pause", path.to_str().unwrap(), "ordrs"]);
    assert_eq!(outcome.status.code(), Some(2));
    let said = text(&outcome.stderr);
    assert!(said.starts_with("error: ") && said.contains("has no table `ordrs`"), "{said}");
    assert!(said.contains("help: did you mean `orders`?"), "{said}");
}

#[test]
fn secrets_of_the_environment_are_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mask = "orders: { from: shop.public.orders, operators: [{ mask: { columns: [a], with: hmac, key: \"${DF_TEST_KEY}\" } }] }";
    let path = topology(folder.path(), &RIGHT.replace("orders: { from: shop.public.orders }", mask));
    let mut command = Command::new(env!("CARGO_BIN_EXE_dataflow"));
    let outcome =
        command.args(["check", path.to_str().unwrap()]).env("DF_TEST_KEY", "s3cret-but-short").output().unwrap();
    let said = text(&outcome.stderr) + &text(&outcome.stdout);
    assert!(said.contains("the key has 16 bytes"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn wrong_arguments_end_with_2_and_say_how_it_is_written() {
    let wrong: [(&[&str], &str); 6] = [
        (&["frobnicate"], "unrecognized subcommand"),
        (&["check"], "<TOPOLOGY>"),
        (&["run", "t.yaml", "--shard", "5/4"], "write i/n"),
        (&["run", "t.yaml", "--set", "novalue"], "write PATH=VALUE"),
        (&["replay", "t.yaml", "--from", "0"], "--from"),
        (&["quarantine", "show", "t.yaml", "17"], "an id is EPOCH/ROW"),
    ];
    for (arguments, expected) in wrong {
        let outcome = dataflow(arguments);
        assert_eq!(outcome.status.code(), Some(2), "{arguments:?}");
        assert!(text(&outcome.stderr).contains(expected), "{arguments:?}: {}", text(&outcome.stderr));
    }
}

#[test]
fn help_names_the_commands_that_are_there_and_no_others() {
    let outcome = dataflow(&["--help"]);
    assert_eq!(outcome.status.code(), Some(0));
    let said = text(&outcome.stdout);
    for command in
        ["run", "check", "plan", "status", "table", "quarantine", "replay", "reprocess", "schema", "verify", "compact"]
    {
        assert!(said.contains(&format!("\n  {command} ")), "{command} in {said}");
        let help = dataflow(&[command, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{command}");
        let help = text(&help.stdout);
        assert!(command == "quarantine" || help.contains("Example"), "{help}");
    }
    assert!(!said.contains("\n  test "), "{said}");
    assert!(text(&dataflow(&["check", "--help"]).stdout).contains("--connect"));
}

#[test]
fn schemas_are_json_schema() {
    for (arguments, field) in [(&["schema"][..], "sources"), (&["schema", "contract"][..], "columns")] {
        let outcome = dataflow(arguments);
        assert_eq!(outcome.status.code(), Some(0));
        let schema: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(schema["properties"][field]["description"].is_string());
        assert_eq!(schema["additionalProperties"], false);
    }
}
