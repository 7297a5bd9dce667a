//! Holds a document against the JSON Schema of what it should be: unknown and missing fields, wrong types, unknown
//! choices, all at once and in place. What is sound comes out as JSON with the types that the schema asks for.

use serde_json::{Map, Value as Json};

use super::document::{At, Node, Value, join};
use super::mistake::{Mistake, list, suggest};
use super::sheet::Sheet;
use super::units::{Bytes, Span};
use crate::contract::{TYPE_NAMES, Type};

/// Checks nodes against one schema.
pub(super) struct Shape<'a> {
    schema: &'a Json,
    sheet: &'a Sheet,
    /// Leaves out what is optional and wrong, instead of giving up what it stands in.
    lenient: bool,
    pub mistakes: Vec<Mistake>,
    /// Fields that were misspelt: the paths that were probably meant.
    pub meant: Vec<String>,
}

impl<'a> Shape<'a> {
    pub fn new(schema: &'a Json, sheet: &'a Sheet) -> Self {
        Self { schema, sheet, lenient: false, mistakes: Vec::new(), meant: Vec::new() }
    }

    /// The whole document.
    pub fn root(&mut self, node: &Node) -> Option<Json> {
        let key = self.sheet.place("").key;
        self.value(node, self.schema, "", key)
    }

    /// The node read as the definition `name`, as far as it is right, without reporting anything.
    pub fn quiet<T: serde::de::DeserializeOwned>(&self, node: &Node, name: &str) -> Option<T> {
        let schema = self.schema.get("$defs")?.get(name)?;
        let mut lenient = Self { lenient: true, ..Self::new(self.schema, self.sheet) };
        serde_json::from_value(lenient.value(node, schema, "", node.at)?).ok()
    }

    fn say(&mut self, at: At, path: &str, message: impl Into<String>, help: Option<String>) -> Option<Json> {
        self.mistakes.push(self.sheet.mistake(at, path, message, help));
        None
    }

    fn value(&mut self, node: &Node, schema: &'a Json, path: &str, key: At) -> Option<Json> {
        if let Some(name) = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
            if let (Value::Scalar { text, .. }, Some(outcome)) = (&node.value, own_text_form(name, node)) {
                return match outcome {
                    Ok(()) => Some(Json::String(text.trim().to_owned())),
                    Err((message, help)) => self.say(node.at, path, message, help),
                };
            }
            return self.value(node, &self.schema["$defs"][name], path, key);
        }
        if let Some(either) = schema.get("anyOf").and_then(Json::as_array) {
            // An optional value: the other branch is null.
            let inner = either.iter().find(|branch| branch.get("type").and_then(Json::as_str) != Some("null"))?;
            return if matches!(node.value, Value::Null) {
                Some(Json::Null)
            } else {
                self.value(node, inner, path, key)
            };
        }
        if matches!(node.value, Value::Unresolved) {
            return None;
        }
        if schema.get("oneOf").is_some() || schema.get("enum").is_some() {
            return self.choice(node, schema, path, key);
        }
        let (kind, nullable) = kind(schema);
        match (kind, &node.value) {
            (_, Value::Null) if nullable => Some(Json::Null),
            ("object", Value::Map(_)) => self.object(node, schema, path, key),
            ("array", Value::List(items)) => {
                let found: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| self.value(item, &schema["items"], &format!("{path}[{i}]"), item.at))
                    .collect();
                found.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
            }
            ("string" | "integer" | "boolean", Value::Scalar { text, .. }) => match scalar(kind, text, schema) {
                Ok(json) => Some(json),
                Err(message) => self.say(node.at, path, message, None),
            },
            ("object" | "array", Value::Null) => {
                // `groups:` with nothing below it.
                let empty = if kind == "array" { Json::Array(Vec::new()) } else { Json::Object(Map::new()) };
                if kind == "object" && schema.get("properties").is_some() {
                    return self.object(node, schema, path, key);
                }
                Some(empty)
            }
            _ => {
                let at = if node.at.line == key.line || !matches!(node.value, Value::Map(_) | Value::List(_)) {
                    node.at
                } else {
                    key
                };
                let message = format!("{} is expected here, but this is {}", article(kind, schema), node.kind());
                let help = self.example(node, schema);
                self.say(at, path, message, help)
            }
        }
    }

    fn object(&mut self, node: &Node, schema: &'a Json, path: &str, key: At) -> Option<Json> {
        let empty = Vec::new();
        let entries = match &node.value {
            Value::Map(entries) => entries,
            _ => &empty,
        };
        let properties = schema.get("properties").and_then(Json::as_object);
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        let mut out = Map::new();
        let mut sound = true;
        let mut meant = Vec::new();
        for (name, child) in entries {
            let below = join(path, &name.text);
            let known = properties.and_then(|p| p.get(&name.text));
            let Some(inner) = known.or_else(|| schema.get("additionalProperties").filter(|s| s.is_object())) else {
                let names: Vec<&str> = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let help = suggest(&name.text, names.iter().copied(), "known fields are");
                if let Some(near) = super::mistake::nearest(&name.text, names) {
                    meant.push(near);
                    self.meant.push(join(path, near));
                }
                self.say(name.at, &below, format!("unknown field `{}`", name.text), Some(help));
                sound = self.lenient && sound;
                continue;
            };
            if known.is_some() && matches!(child.value, Value::Null) && !required.contains(&name.text.as_str()) {
                continue;
            }
            match self.value(child, inner, &below, name.at) {
                Some(json) => drop(out.insert(name.text.clone(), json)),
                None => sound = sound && self.lenient && known.is_some() && !required.contains(&name.text.as_str()),
            }
        }
        for name in required.into_iter().filter(|name| node.get(name).is_none()) {
            sound = false;
            // A misspelt field was reported with the right name already.
            if !meant.contains(&name) {
                self.missing(schema, name, path, key);
            }
        }
        sound.then_some(Json::Object(out))
    }

    fn missing(&mut self, schema: &'a Json, name: &str, path: &str, key: At) {
        let what = self.description(&schema["properties"][name]);
        let help = what.map(|what| format!("`{name}`: {what}"));
        self.say(key, &join(path, name), format!("`{name}` is missing"), help);
    }

    /// One of several: plain words, mappings told apart by a field, or mappings with a single field.
    fn choice(&mut self, node: &Node, schema: &'a Json, path: &str, key: At) -> Option<Json> {
        let branches: Vec<&'a Json> = schema["oneOf"].as_array().into_iter().flatten().collect();
        let listed = schema["enum"].as_array().into_iter().flatten();
        let words: Vec<&str> =
            branches.iter().filter_map(|b| b.get("const")).chain(listed).filter_map(Json::as_str).collect();
        let tag = branches.first().and_then(|b| b["properties"].as_object()).and_then(|properties| {
            properties.iter().find(|(_, p)| p.get("const").is_some()).map(|(name, _)| name.as_str())
        });
        if let Some(tag) = tag {
            return self.tagged(node, &branches, tag, path, key);
        }
        let wrapped = |branch: &&'a Json| branch["required"][0].as_str();
        match &node.value {
            Value::Scalar { text, .. } if words.contains(&text.as_str()) => Some(Json::String(text.clone())),
            Value::Scalar { text, .. } => {
                if branches.iter().any(|b| wrapped(b) == Some(text)) {
                    return self.say(
                        node.at,
                        path,
                        format!("`{text}` needs a value"),
                        Some(format!("write `{text}: …`")),
                    );
                }
                let all = words.iter().copied().chain(branches.iter().filter_map(wrapped));
                let message = format!("`{text}` is not known here");
                let near = super::mistake::nearest(text, all.clone());
                let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
                self.say(node.at, path, message, Some(near + &list(all, "known are")))
            }
            Value::Map(entries) if branches.len() > words.len() => {
                let names = branches.iter().filter_map(wrapped);
                let [(name, _)] = entries.as_slice() else {
                    let message = "exactly one of these is expected here".to_owned();
                    return self.say(node.at, path, message, Some(list(names, "known are")));
                };
                match branches.iter().find(|b| wrapped(b) == Some(&name.text)) {
                    Some(branch) => self.object(node, branch, path, key),
                    None => {
                        let help = suggest(&name.text, names, "known are");
                        self.say(
                            name.at,
                            &join(path, &name.text),
                            format!("`{}` is not known here", name.text),
                            Some(help),
                        )
                    }
                }
            }
            _ => {
                let names = words.iter().copied().chain(branches.iter().filter_map(wrapped));
                let message = format!("one word is expected here, but this is {}", node.kind());
                self.say(node.at, path, message, Some(list(names, "known are")))
            }
        }
    }

    fn tagged(&mut self, node: &Node, branches: &[&'a Json], tag: &str, path: &str, key: At) -> Option<Json> {
        let Value::Map(_) = &node.value else {
            return self.say(node.at, path, format!("a mapping is expected here, but this is {}", node.kind()), None);
        };
        let word = |branch: &&'a Json| branch["properties"][tag]["const"].as_str();
        let words: Vec<&str> = branches.iter().filter_map(word).collect();
        let Some(chosen) = node.get(tag) else {
            let help = Some(list(words, "known are"));
            return self.say(key, &join(path, tag), format!("`{tag}` is missing"), help);
        };
        let Value::Scalar { text, .. } = &chosen.value else {
            return self.say(
                chosen.at,
                &join(path, tag),
                format!("`{tag}` takes one word"),
                Some(list(words, "known are")),
            );
        };
        match branches.iter().find(|branch| word(branch) == Some(text)) {
            Some(branch) => self.object(node, branch, path, key),
            None => {
                let help = Some(suggest(text, words, "known are"));
                self.say(chosen.at, &join(path, tag), format!("unknown {tag} `{text}`"), help)
            }
        }
    }

    fn example(&self, node: &Node, schema: &'a Json) -> Option<String> {
        if kind(schema).0 == "array" {
            return Some("write `[a, b]`, or one `- item` per line".into());
        }
        let fields = schema.get("properties")?.as_object()?;
        if let Value::Scalar { text } = &node.value {
            // A word where a mapping is wanted: perhaps it is one of the words of a field.
            let takes =
                |field: &Json| field["$ref"].as_str().is_some_and(|name| self.words(name).contains(&text.as_str()));
            if let Some((name, _)) = fields.iter().find(|(_, field)| takes(field)) {
                return Some(format!("write `{{ {name}: {text} }}`"));
            }
        }
        Some(list(fields.keys().map(String::as_str), "its fields are"))
    }

    /// The words that the definition at `reference` takes.
    fn words(&self, reference: &str) -> Vec<&'a str> {
        let name = reference.trim_start_matches("#/$defs/");
        let definition = &self.schema["$defs"][name];
        let branches = definition["oneOf"].as_array().into_iter().flatten().filter_map(|b| b.get("const"));
        branches.chain(definition["enum"].as_array().into_iter().flatten()).filter_map(Json::as_str).collect()
    }

    fn description(&self, schema: &'a Json) -> Option<String> {
        let own = schema.get("description").and_then(Json::as_str);
        own.map(|text| text.split("\n\n").next().unwrap_or(text).replace('\n', " "))
    }
}

/// Types that are written as text and read by their own code. `None` for all others.
fn own_text_form(name: &str, node: &Node) -> Option<Result<(), (String, Option<String>)>> {
    let Value::Scalar { text, .. } = &node.value else { return None };
    let with_help = |message: String| match message.split_once("; ") {
        Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
        None => (message, None),
    };
    match name {
        "Span" => Some(Span::try_from(text.clone()).map(|_| ()).map_err(with_help)),
        "Bytes" => Some(Bytes::try_from(text.clone()).map(|_| ()).map_err(with_help)),
        "ColumnType" => Some(text.parse::<Type>().map(|_| ()).map_err(|message| {
            if !message.starts_with("unknown type") {
                return with_help(message);
            }
            let plain = |name: &'static str| name.split('(').next().unwrap_or(name);
            let near = super::mistake::nearest(text.split('(').next().unwrap_or(text), TYPE_NAMES.map(plain));
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            (format!("unknown type `{text}`"), Some(format!("{near}known are {}", TYPE_NAMES.join(", "))))
        })),
        _ => None,
    }
}

fn kind(schema: &Json) -> (&str, bool) {
    match &schema["type"] {
        Json::String(kind) => (kind, false),
        Json::Array(kinds) => {
            let kinds: Vec<&str> = kinds.iter().filter_map(Json::as_str).collect();
            (kinds.iter().copied().find(|k| *k != "null").unwrap_or("string"), kinds.contains(&"null"))
        }
        _ => ("object", false),
    }
}

fn scalar(kind: &str, text: &str, schema: &Json) -> Result<Json, String> {
    match kind {
        "integer" => {
            let number: i64 = text.trim().parse().map_err(|_| format!("`{text}` is not a whole number"))?;
            let least = schema.get("minimum").and_then(Json::as_i64).unwrap_or(i64::MIN);
            let most = if schema["format"] == "uint32" { i64::from(u32::MAX) } else { i64::MAX };
            if (least..=most).contains(&number) {
                Ok(Json::from(number))
            } else {
                Err(format!("`{text}` is not between {least} and {most}"))
            }
        }
        "boolean" => match text {
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            _ => Err(format!("`{text}` is neither `true` nor `false`")),
        },
        _ if schema["format"] == "date-time" => chrono::DateTime::parse_from_rfc3339(text)
            .map(|_| Json::String(text.to_owned()))
            .map_err(|_| format!("`{text}` is not a moment like 2026-01-31T12:00:00Z")),
        // Numbers and words without quotes are text where text is wanted: `no` stays `no`.
        _ => Ok(Json::String(text.to_owned())),
    }
}

fn article(kind: &str, schema: &Json) -> String {
    match kind {
        "object" if schema.get("properties").is_none() => "a mapping of names".into(),
        "object" => "a mapping".into(),
        "array" => "a list".into(),
        "integer" => "a whole number".into(),
        "boolean" => "`true` or `false`".into(),
        _ => "a text".into(),
    }
}
