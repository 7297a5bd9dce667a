//! From a file to a checked topology: parse, `--set`, references, shape, rules, contracts; every mistake at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::contract_file::ContractFile;
use super::document::{self, At, Node, Value};
use super::mistake::{Mistake, Mistakes, suggest};
use super::reference::{self, Environment};
use super::rules::{self, Draft, Findings};
use super::shape::Shape;
use super::sheet::Sheet;
use super::topology::{Operator, Topology};
use super::units::Span;

/// A checked topology and the contract files that it names.
#[derive(Clone)]
pub struct Loaded {
    /// The topology, references resolved.
    pub topology: Topology,
    /// Contract files, by table.
    pub contracts: BTreeMap<String, ContractFile>,
    /// The topology's file. Relative paths inside it are relative to the working directory, but for `contract:` and
    /// `file:`, which are relative to it.
    pub path: PathBuf,
    sheet: Sheet,
    texts: BTreeMap<String, String>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("path", &self.path).field("topology", &self.topology).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Line and column (from 1) of the value at `path`, e.g. `tables.orders.operators[0].validate.rule`. `None` when
    /// nothing stands there, or when it came from the command line.
    pub fn locate(&self, path: &str) -> Option<(u32, u32)> {
        let at = self.sheet.exact(path)?.value;
        (at.line > 0).then_some((at.line, at.column))
    }

    /// A mistake at `path`, `offset` bytes into its text when that is known: for checks that only other modules can do.
    pub fn mistake(
        &self,
        path: &str,
        offset: Option<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Mistake {
        let at = match (self.texts.get(path), offset) {
            (Some(text), Some(offset)) if text.is_char_boundary(offset) => self.sheet.inside(path, text, offset),
            _ => self.sheet.place(path).value,
        };
        self.sheet.mistake(at, path, message, help)
    }
}

/// Reads and checks a topology. `overrides` are the `--set path=value`.
pub fn load(path: &Path, overrides: &[(String, String)]) -> Result<Loaded, Mistakes> {
    load_with(path, overrides, &|name| std::env::var(name).ok())
}

/// As [`load`], with another environment.
pub fn load_with(path: &Path, overrides: &[(String, String)], env: Environment<'_>) -> Result<Loaded, Mistakes> {
    let (mut root, mut sheet, mut mistakes) = read(path, &path.display().to_string())?;
    for (target, value) in overrides {
        mistakes.extend(reference::set(&mut root, target, value, &mut sheet).err().map(|mistake| *mistake));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    mistakes.extend(reference::resolve(&mut root, folder, env, &mut sheet));
    let schema = topology_schema();
    let mut shape = Shape::new(&schema, &sheet);
    let json = shape.root(&root);
    mistakes.append(&mut shape.mistakes);
    let draft = draft(&root, &shape);
    let mut found = Findings::new(&sheet);
    rules::check(&draft, &mut found);
    let contracts = contracts(&draft, folder, &mut found);
    found.list.retain(|mistake| mistakes.iter().all(|known| !follows(&mistake.path, &known.path)));
    found.list.retain(|mistake| shape.meant.iter().all(|meant| !follows(&mistake.path, meant)));
    mistakes.append(&mut found.list);
    let topology = json.and_then(|json| match serde_json::from_value::<Topology>(json) {
        Ok(topology) => Some(topology),
        // The schema is made from the same types: this is for what only the types themselves can refuse.
        Err(error) => {
            mistakes.push(sheet.mistake(sheet.place("").value, "", error.to_string(), None));
            None
        }
    });
    finish(mistakes)?;
    let Some(topology) = topology else { return Err(Mistakes::default()) };
    let texts = texts(&root);
    Ok(Loaded { topology, contracts, path: path.to_owned(), sheet, texts })
}

/// The JSON Schema of a topology.
pub fn topology_schema() -> Json {
    schemars::schema_for!(Topology).to_value()
}

/// The JSON Schema of a contract file.
pub fn contract_schema() -> Json {
    schemars::schema_for!(ContractFile).to_value()
}

/// Whether something wrong at `path` may only be so because something is wrong at `known`.
fn follows(path: &str, known: &str) -> bool {
    let inside = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    !known.is_empty() && (inside(path, known) || inside(known, path))
}

fn finish(mut mistakes: Vec<Mistake>) -> Result<(), Mistakes> {
    if mistakes.is_empty() {
        return Ok(());
    }
    mistakes.sort_by(|a, b| (&a.file, a.line, a.column, &a.path).cmp(&(&b.file, b.line, b.column, &b.path)));
    mistakes.dedup();
    Err(Mistakes(mistakes))
}

/// Reads and parses one file. What can be collected is in the list; what cannot is the error.
fn read(path: &Path, name: &str) -> Result<(Node, Sheet, Vec<Mistake>), Mistakes> {
    let unread = Sheet::unread(name);
    let start = At { line: 1, column: 1, width: 1 };
    let text = std::fs::read_to_string(path).map_err(|error| {
        let help = "give the path of a YAML file".to_owned();
        Mistakes(vec![unread.mistake(start, "", format!("cannot read the file: {error}"), Some(help))])
    })?;
    match document::parse(&text) {
        Ok((root, malformed)) => {
            let sheet = Sheet::new(name, &text, &root);
            let mistakes = malformed.into_iter().map(|m| sheet.mistake(m.at, "", m.message, None)).collect();
            Ok((root, sheet, mistakes))
        }
        Err(malformed) => Err(Mistakes(vec![unread.mistake(malformed.at, "", malformed.message, None)])),
    }
}

/// Each section read by itself, so that one with mistakes does not hide those of the others.
fn draft(root: &Node, shape: &Shape<'_>) -> Draft {
    let text = |name: &str| match root.get(name).map(|node| &node.value) {
        Some(Value::Scalar { text, .. }) => Some(text.clone()),
        _ => None,
    };
    fn each<T>(root: &Node, name: &str, read: impl Fn(&Node) -> Option<T>) -> BTreeMap<String, Option<T>> {
        match root.get(name).map(|node| &node.value) {
            Some(Value::Map(entries)) => entries.iter().map(|(key, node)| (key.text.clone(), read(node))).collect(),
            _ => BTreeMap::new(),
        }
    }
    fn section<T: DeserializeOwned>(root: &Node, shape: &Shape<'_>, name: &str, definition: &str) -> Option<T> {
        shape.quiet(root.get(name)?, definition)
    }
    let list = |node: &Node| match &node.value {
        Value::List(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Scalar { text, .. } => Some(text.clone()),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    Draft {
        version: text("version").and_then(|text| text.parse().ok()),
        name: text("name"),
        sources: each(root, "sources", |node| shape.quiet(node, "Source")),
        tables: each(root, "tables", |node| shape.quiet(node, "Table")),
        operators: each(root, "tables", |node| operators(node, shape)).into_iter().map(known).collect(),
        groups: each(root, "groups", list),
        fresh_within: text("fresh_within").and_then(|text| Span::try_from(text).ok()),
        lake: section(root, shape, "lake", "Lake"),
        warehouse: section(root, shape, "warehouse", "Warehouse"),
        epoch: section(root, shape, "epoch", "Epoch"),
        admin: section(root, shape, "admin", "Admin"),
        limits: section(root, shape, "limits", "Limits"),
    }
}

fn operators(table: &Node, shape: &Shape<'_>) -> Option<Vec<Option<Operator>>> {
    match &table.get("operators")?.value {
        Value::List(items) => Some(items.iter().map(|item| shape.quiet(item, "Operator")).collect()),
        _ => None,
    }
}

fn known<T: Default>((name, value): (String, Option<T>)) -> (String, T) {
    (name, value.unwrap_or_default())
}

fn contracts(draft: &Draft, folder: &Path, found: &mut Findings<'_>) -> BTreeMap<String, ContractFile> {
    let mut contracts = BTreeMap::new();
    for (name, table) in &draft.tables {
        let Some(file) = table.as_ref().and_then(|table| table.contract.as_ref()) else { continue };
        let path = folder.join(file);
        let (node, sheet, mut mistakes) = match read(&path, &path.display().to_string()) {
            Ok(read) => read,
            Err(_) if !path.is_file() => {
                let message = format!("there is no contract file {}", path.display());
                found.value(
                    &format!("tables.{name}.contract"),
                    message,
                    "the path is relative to the topology's folder",
                );
                continue;
            }
            Err(mistakes) => {
                found.list.extend(mistakes.0);
                continue;
            }
        };
        let schema = contract_schema();
        let mut shape = Shape::new(&schema, &sheet);
        let contract = shape.root(&node).and_then(|json| serde_json::from_value::<ContractFile>(json).ok());
        mistakes.append(&mut shape.mistakes);
        if let Some(contract) = contract {
            let mut inner = Findings::new(&sheet);
            contract_rules(&contract, &mut inner);
            mistakes.append(&mut inner.list);
            let key = table.as_ref().and_then(|table| table.key.as_deref()).unwrap_or_default();
            known_columns(found, &format!("tables.{name}.key"), key, &contract);
            contracts.insert(name.clone(), contract);
        }
        found.list.append(&mut mistakes);
    }
    contracts
}

fn contract_rules(contract: &ContractFile, found: &mut Findings<'_>) {
    if contract.version != 1 {
        let message = format!("version {} is not known", contract.version);
        found.value("version", message, "this program reads version 1");
    }
    if contract.columns.is_empty() && !contract.learn {
        found.key("columns", "there is no column, and none is learned", "list columns, or write `learn: true`");
    }
    for (i, column) in contract.columns.iter().enumerate() {
        let path = format!("columns[{i}].name");
        if column.name.is_empty() {
            found.value(&path, "the column's name is empty", "");
        } else if contract.columns[..i].iter().any(|other| other.name == column.name) {
            found.value(&path, format!("there are two columns `{}`", column.name), "");
        }
    }
    for (i, column) in contract.key.iter().enumerate() {
        if contract.key[..i].contains(column) {
            found.value(&format!("key[{i}]"), format!("`{column}` is in the key twice"), "");
        }
    }
    known_columns(found, "key", &contract.key, contract);
}

fn known_columns(found: &mut Findings<'_>, path: &str, names: &[String], contract: &ContractFile) {
    for (i, name) in names.iter().enumerate() {
        if !contract.columns.iter().any(|column| &column.name == name) {
            let help = suggest(name, contract.columns.iter().map(|c| c.name.as_str()), "columns are");
            found.value(&format!("{path}[{i}]"), format!("the contract has no column `{name}`"), help);
        }
    }
}

/// Every scalar's text by path, for offsets into expressions.
fn texts(root: &Node) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    root.visit("", root.at, &mut |path, _, node| {
        if let (true, Value::Scalar { text, .. }) = (path.contains(".operators["), &node.value) {
            texts.insert(path.to_owned(), text.clone());
        }
    });
    texts
}
