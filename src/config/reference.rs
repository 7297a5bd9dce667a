//! `${ENV}`, `${ENV:-default}` and `file:` in values. Resolved after parsing, so that no message holds what they stand
//! for; and `--set path=value`.

use std::path::Path;

use super::document::{self, At, Node, Value, join};
use super::mistake::Mistake;
use super::sheet::Sheet;

/// Where `${NAME}` is looked up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces the references in every scalar below `root`.
pub(super) fn resolve(root: &mut Node, folder: &Path, env: Environment<'_>, sheet: &mut Sheet) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    walk(root, "", &mut |path, node| {
        let Value::Scalar { text, .. } = &mut node.value else { return };
        let outcome = match text.strip_prefix("file:") {
            Some(file) => read(folder, file).map(|value| (value.clone(), vec![(value, text.clone())])),
            None if text.contains("${") => substitute(text, env),
            None => return,
        };
        match outcome {
            Ok((value, secrets)) => {
                secrets.iter().for_each(|(secret, label)| sheet.hide(secret, label));
                *text = value;
            }
            Err((message, help)) => {
                mistakes.push(sheet.mistake(node.at, path, message, Some(help)));
                node.value = Value::Unresolved;
            }
        }
    });
    mistakes
}

fn walk(node: &mut Node, path: &str, change: &mut impl FnMut(&str, &mut Node)) {
    change(path, node);
    match &mut node.value {
        Value::List(items) => {
            items.iter_mut().enumerate().for_each(|(i, item)| walk(item, &format!("{path}[{i}]"), change));
        }
        Value::Map(entries) => {
            entries.iter_mut().for_each(|(key, node)| walk(node, &join(path, &key.text), change));
        }
        _ => {}
    }
}

type Resolved = Result<(String, Vec<(String, String)>), (String, String)>;

fn read(folder: &Path, file: &str) -> Result<String, (String, String)> {
    let path = folder.join(file.strip_prefix("//").unwrap_or(file));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let message = format!("cannot read the file {}: {error}", path.display());
        (message, "`file:` is followed by a path, relative to the topology".to_owned())
    })?;
    // Editors and `echo` end files with a newline that is no part of the secret.
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn substitute(text: &str, env: Environment<'_>) -> Resolved {
    let (mut out, mut secrets, mut rest) = (String::new(), Vec::new(), text);
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start - 1]);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let end = rest[start..].find('}').ok_or_else(|| {
            ("`${` without its closing `}`".to_owned(), "write `${NAME}`, or `$${` for the two characters".to_owned())
        })?;
        let (value, name) = variable(&rest[start + 2..start + end], env)?;
        secrets.push((value.clone(), format!("${{{name}}}")));
        out.push_str(&value);
        rest = &rest[start + end + 1..];
    }
    out.push_str(rest);
    Ok((out, secrets))
}

fn variable<'t>(inside: &'t str, env: Environment<'_>) -> Result<(String, &'t str), (String, String)> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(letters) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err((
            "`${…}` must hold the name of an environment variable".to_owned(),
            "letters, digits and `_`; a default follows after `:-`".to_owned(),
        ));
    }
    let found = env(name).filter(|value| !value.is_empty()).or_else(|| default.map(str::to_owned));
    found.map(|value| (value, name)).ok_or_else(|| {
        let message = format!("the environment variable `{name}` is not set (or is empty)");
        (message, format!("set it, or give a default: `${{{name}:-…}}`"))
    })
}

/// Puts `value` at `path`, which may be new. The value is YAML, so lists and mappings work.
pub(super) fn set(root: &mut Node, path: &str, value: &str, sheet: &mut Sheet) -> Result<(), Box<Mistake>> {
    let here = At::default();
    let refuse = |sheet: &Sheet, message: String, help: &str| {
        Err(Box::new(sheet.mistake(here, path, message, Some(help.into()))))
    };
    let mut new = match document::parse(value) {
        Ok((node, mistakes)) if mistakes.is_empty() => node,
        _ => return refuse(sheet, "the value is not YAML".into(), "quote it: --set 'path=\"value\"'"),
    };
    let Some(steps) = steps(path) else {
        return refuse(
            sheet,
            "this is not a path".into(),
            "write e.g. `epoch.every` or `tables.orders.operators[0].mask.key`",
        );
    };
    let mut target = root;
    for step in &steps {
        let kind = target.kind();
        target = match enter(target, step) {
            Some(next) => next,
            None => {
                return refuse(sheet, format!("there is no `{step}` here: this is {kind}"), "look at the path again");
            }
        };
    }
    off_the_file(&mut new);
    *target = new.clone();
    sheet.index(path, here, &new);
    Ok(())
}

fn off_the_file(node: &mut Node) {
    (node.at, node.last_line) = (At::default(), 0);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(off_the_file),
        Value::Map(entries) => entries.iter_mut().for_each(|(key, node)| {
            key.at = At::default();
            off_the_file(node);
        }),
        _ => {}
    }
}

/// `a.b[2]."c.d"` as `a`, `b`, `[2]`, `c.d`.
fn steps(path: &str) -> Option<Vec<String>> {
    let (mut steps, mut rest) = (Vec::new(), path);
    while !rest.is_empty() {
        let (step, tail) = if let Some(quoted) = rest.strip_prefix('"') {
            let (step, tail) = quoted.split_once('"')?;
            (step.to_owned(), tail)
        } else if rest.starts_with('[') {
            let end = rest.find(']')?;
            rest[1..end].parse::<usize>().ok()?;
            (rest[..=end].to_owned(), &rest[end + 1..])
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        if step.is_empty() || tail == "." {
            return None;
        }
        steps.push(step);
        rest = tail.strip_prefix('.').unwrap_or(tail);
    }
    (!steps.is_empty()).then_some(steps)
}

fn enter<'n>(node: &'n mut Node, step: &str) -> Option<&'n mut Node> {
    if matches!(node.value, Value::Null) && !step.starts_with('[') {
        node.value = Value::Map(Vec::new());
    }
    match &mut node.value {
        Value::List(items) => items.get_mut(step.strip_prefix('[')?.strip_suffix(']')?.parse::<usize>().ok()?),
        Value::Map(entries) => {
            let index = entries.iter().position(|(key, _)| key.text == step).unwrap_or_else(|| {
                let key = document::Key { text: step.to_owned(), at: At::default() };
                entries.push((key, Node { at: At::default(), last_line: 0, value: Value::Null }));
                entries.len() - 1
            });
            Some(&mut entries[index].1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db.internal".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_or_explained() {
        let value = |text: &str| substitute(text, &env).map(|(value, _)| value).map_err(|(message, _)| message);
        assert_eq!(value("${HOST}:5432"), Ok("db.internal:5432".into()));
        assert_eq!(value("${MISSING:-x}-${EMPTY:-y}"), Ok("x-y".into()));
        assert_eq!(value("$${HOST} ${HOST}"), Ok("${HOST} db.internal".into()));
        assert!(value("${EMPTY}").is_err_and(|m| m.contains("`EMPTY` is not set")));
        assert!(value("${HOST").is_err_and(|m| m.contains("closing")));
        assert!(value("${1X}").is_err_and(|m| m.contains("name of an environment variable")));
    }

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(steps("a.b[2].c"), Some(vec!["a".into(), "b".into(), "[2]".into(), "c".into()]));
        assert_eq!(steps("p.\"x.y\""), Some(vec!["p".into(), "x.y".into()]));
        for wrong in ["", "a..b", "a.", "a[x]", ".a"] {
            assert_eq!(steps(wrong), None, "{wrong}");
        }
    }
}
