//! What is found by looking at a place that a topology names: what `check --connect` says.

use serde::Serialize;

use crate::error::{Disposition, Error, ErrorKind};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing: it will be made at the start, or it is so and that is fine.
    Note,
    /// It works, and may not for ever.
    Warning,
    /// It does not work, and a person must change something.
    Mistake,
    /// It could not be looked at.
    Unreachable,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where: `source shop`, `lake`, `warehouse`.
    pub place: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do about it; SQL stands on lines of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// What was found at one place.
#[derive(Debug, Default)]
pub struct Findings {
    place: String,
    /// In the order in which they were found.
    pub list: Vec<Finding>,
}

impl Findings {
    /// Nothing so far.
    pub fn at(place: impl Into<String>) -> Self {
        Self { place: place.into(), list: Vec::new() }
    }

    /// Adds one.
    pub fn add(&mut self, level: Level, what: impl Into<String>, help: Option<String>) {
        self.list.push(Finding { place: self.place.clone(), level, what: what.into(), help });
    }

    /// As it should be.
    pub fn good(&mut self, what: impl Into<String>) {
        self.add(Level::Good, what, None);
    }

    /// Something that a person must change.
    pub fn mistake(&mut self, what: impl Into<String>, help: impl Into<String>) {
        self.add(Level::Mistake, what, Some(help.into()));
    }

    /// A failure: whether it is a mistake or passes is its kind's.
    pub fn failure(&mut self, error: &Error) {
        let passes = error.disposition() == Disposition::Retry || error.kind() == &ErrorKind::Internal;
        let level = if passes { Level::Unreachable } else { Level::Mistake };
        let text = error.to_string();
        let what = text.split("\n  help: ").next().unwrap_or_default();
        self.add(level, what, error.help_text().map(str::to_owned));
    }
}
