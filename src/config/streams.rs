//! Which source a table's stream comes from.

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobMatcher};

use super::mistake::suggest;
use super::rules::Findings;
use super::topology::{Source, Table, Topology};

/// A topic entry as it is matched against stream names.
pub(super) enum TopicPattern {
    Name(String),
    Glob(GlobMatcher),
    Expression(regex::Regex),
}

impl TopicPattern {
    fn matches(&self, stream: &str) -> bool {
        match self {
            Self::Name(name) => name == stream,
            Self::Glob(glob) => glob.is_match(stream),
            Self::Expression(expression) => expression.is_match(stream),
        }
    }
}

/// Reads a topic entry: a name, `*` for any characters, or `^` and a regular expression.
pub(super) fn topic_pattern(entry: &str) -> Result<TopicPattern, String> {
    if entry.starts_with('^') {
        return regex::Regex::new(entry).map(TopicPattern::Expression).map_err(|error| {
            let text = error.to_string();
            text.lines().last().unwrap_or("it cannot be read").trim_start_matches("error: ").to_owned()
        });
    }
    if !entry.contains('*') {
        return Ok(TopicPattern::Name(entry.to_owned()));
    }
    // Only `*` is special in topic entries; names of topics hold no other sign that a glob would read.
    let glob = GlobBuilder::new(entry).literal_separator(false).build().map_err(|error| error.kind().to_string())?;
    Ok(TopicPattern::Glob(glob.compile_matcher()))
}

impl Source {
    /// Whether the stream of that name can come from here. A file source without `stream` may have any.
    pub fn offers(&self, stream: &str) -> bool {
        match self {
            Self::Kafka(kafka) => {
                kafka.topics.iter().any(|entry| topic_pattern(entry).is_ok_and(|pattern| pattern.matches(stream)))
            }
            Self::Postgres(postgres) => {
                postgres.tables.iter().any(|entry| topic_pattern(entry).is_ok_and(|pattern| pattern.matches(stream)))
            }
            Self::Mysql(mysql) => {
                mysql.tables.iter().any(|entry| topic_pattern(entry).is_ok_and(|pattern| pattern.matches(stream)))
            }
            Self::File(file) => file.stream.as_deref().is_none_or(|own| own == stream),
        }
    }

    /// Whether it can be asked for the rows of a table again, while its stream goes on.
    pub fn can_read_again(&self) -> bool {
        match self {
            Self::Postgres(_) | Self::Mysql(_) => true,
            Self::Kafka(_) | Self::File(_) => false,
        }
    }

    fn is_readable(&self) -> bool {
        match self {
            Self::Kafka(kafka) => kafka.topics.iter().all(|entry| topic_pattern(entry).is_ok()),
            Self::Postgres(postgres) => postgres.tables.iter().all(|entry| topic_pattern(entry).is_ok()),
            Self::Mysql(mysql) => mysql.tables.iter().all(|entry| topic_pattern(entry).is_ok()),
            Self::File(_) => true,
        }
    }

    /// What it offers, for messages.
    fn streams(&self) -> String {
        match self {
            Self::Kafka(kafka) => kafka.topics.join(", "),
            Self::Postgres(postgres) => postgres.tables.join(", "),
            Self::Mysql(mysql) => mysql.tables.join(", "),
            Self::File(file) => file.stream.clone().unwrap_or_else(|| "what its events name".into()),
        }
    }
}

impl Topology {
    /// The source that a table's stream comes from.
    pub fn source_of(&self, table: &Table) -> Option<(&str, &Source)> {
        let found = match &table.source {
            Some(name) => self.sources.get_key_value(name),
            None if self.sources.len() == 1 => self.sources.first_key_value(),
            None => self.sources.iter().find(|(_, source)| source.offers(&table.from)),
        };
        found.map(|(name, source)| (name.as_str(), source))
    }
}

/// Exactly one source must offer the table's stream.
pub(super) fn check(found: &mut Findings<'_>, path: &str, table: &Table, sources: &BTreeMap<String, Option<Source>>) {
    let from = format!("{path}.from");
    if table.from.is_empty() {
        found.value(&from, "the stream's name is empty", "a Kafka topic, or `<prefix>.<schema>.<table>`");
        return;
    }
    if let Some(name) = &table.source {
        let at = format!("{path}.source");
        match sources.get(name) {
            None => {
                let help = suggest(name, sources.keys().map(String::as_str), "sources are");
                found.value(&at, format!("there is no source `{name}`"), help);
            }
            Some(Some(source)) if source.is_readable() && !source.offers(&table.from) => {
                let message = format!("the source `{name}` has no stream `{}`", table.from);
                found.value(&from, message, format!("it has: {}", source.streams()));
            }
            _ => {}
        }
        return;
    }
    // A source with mistakes of its own may be the one that is meant.
    if sources.is_empty() || !sources.values().all(|source| source.as_ref().is_some_and(Source::is_readable)) {
        return;
    }
    let sound = || sources.iter().filter_map(|(name, source)| Some((name.as_str(), source.as_ref()?)));
    let offering: Vec<&str> = sound().filter(|(_, s)| s.offers(&table.from)).map(|(name, _)| name).collect();
    match offering.as_slice() {
        [_] => {}
        [] => {
            let all: Vec<String> = sound().map(|(name, source)| format!("{name}: {}", source.streams())).collect();
            let names: Vec<String> = sound().flat_map(|(_, source)| exact_streams(source)).collect();
            let near = super::mistake::nearest(&table.from, names.iter().map(String::as_str));
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            let message = format!("no source has a stream `{}`", table.from);
            found.value(&from, message, format!("{near}streams by source: {}", all.join("; ")));
        }
        several => {
            let names: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
            let message = format!("the stream `{}` could come from {}", table.from, names.join(" and "));
            found.value(&from, message, format!("say which: `source: {}`", several[0]));
        }
    }
}

fn exact_streams(source: &Source) -> Vec<String> {
    match source {
        Source::Kafka(kafka) => without_signs(&kafka.topics),
        Source::Postgres(postgres) => without_signs(&postgres.tables),
        Source::Mysql(mysql) => without_signs(&mysql.tables),
        Source::File(file) => file.stream.iter().cloned().collect(),
    }
}

fn without_signs(entries: &[String]) -> Vec<String> {
    entries.iter().filter(|entry| !entry.starts_with('^') && !entry.contains('*')).cloned().collect()
}
