//! What is left of a statement while it is read.

use super::lexer::{Mode, Word, words};
use super::scope::Scope;

/// The words that are left of a statement.
#[derive(Debug, Clone)]
pub(super) struct Words {
    words: Vec<Word>,
    at: usize,
}

impl Words {
    /// The words of a statement; `None` when it cannot be taken apart.
    pub fn of(sql: &str, mode: Mode) -> Option<Self> {
        let words = words(sql, mode)?.into_iter().filter(|word| !word.is_sign(';')).collect();
        Some(Self { words, at: 0 })
    }

    pub fn rest(&self) -> &[Word] {
        self.words.get(self.at..).unwrap_or_default()
    }

    pub fn next(&mut self) -> Option<Word> {
        let word = self.words.get(self.at).cloned();
        self.at += usize::from(word.is_some());
        word
    }

    pub fn is(&self, key_word: &str) -> bool {
        self.rest().first().is_some_and(|word| word.is(key_word))
    }

    pub fn is_any(&self, key_words: &[&str]) -> bool {
        key_words.iter().any(|word| self.is(word))
    }

    /// Takes the key word if it is next.
    pub fn take(&mut self, key_word: &str) -> bool {
        let found = self.is(key_word);
        self.at += usize::from(found);
        found
    }

    pub fn take_sign(&mut self, sign: char) -> bool {
        let found = self.rest().first().is_some_and(|word| word.is_sign(sign));
        self.at += usize::from(found);
        found
    }

    /// Takes `IF [NOT] EXISTS`; says whether it was there.
    pub fn skip_if_exists(&mut self) -> bool {
        let found = self.take("IF");
        if found {
            self.take("NOT");
            self.take("EXISTS");
        }
        found
    }

    pub fn identifier(&mut self) -> Option<String> {
        let name = self.rest().first()?.name()?.to_owned();
        self.at += 1;
        Some(name)
    }

    /// `[database.]table`
    pub fn name(&mut self, scope: &Scope, database: &str) -> Option<String> {
        // A dot in front stands for the session's database.
        self.take_sign('.');
        let first = self.identifier()?;
        let name = match self.take_sign('.') {
            true => format!("{first}.{}", self.identifier()?),
            false => format!("{database}.{first}"),
        };
        Some(scope.spelled(name))
    }

    pub fn names(&mut self, scope: &Scope, database: &str) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(name) = self.name(scope, database) {
            names.push(name);
            if !self.take_sign(',') {
                break;
            }
        }
        names
    }

    /// Takes MariaDB's `WAIT n` or `NOWAIT`.
    pub fn skip_wait(&mut self) {
        if self.take("WAIT") {
            self.next();
        } else {
            self.take("NOWAIT");
        }
    }

    /// Leaves out everything from that key word on, outside of parentheses.
    pub fn cut_at(&mut self, key_words: &[&str]) {
        let mut depth = 0;
        for at in self.at..self.words.len() {
            depth += i32::from(self.words[at].is_sign('(')) - i32::from(self.words[at].is_sign(')'));
            let rest = &self.words[at..];
            if depth == 0 && rest.len() >= key_words.len() && rest.iter().zip(key_words).all(|(word, key)| word.is(key))
            {
                self.words.truncate(at);
                return;
            }
        }
    }

    /// Takes everything up to that key word and the word itself, outside of parentheses; whether it was there.
    pub fn skip_past(&mut self, key_word: &str) -> bool {
        let mut depth = 0;
        let found = self.rest().iter().position(|word| {
            depth += i32::from(word.is_sign('(')) - i32::from(word.is_sign(')'));
            depth == 0 && word.is(key_word)
        });
        self.at += found.map_or(0, |at| at + 1);
        found.is_some()
    }

    /// What stands in the parentheses that are next.
    pub fn parentheses(&mut self) -> Option<Self> {
        if !self.take_sign('(') {
            return None;
        }
        let (from, mut depth) = (self.at, 1);
        while depth > 0 {
            let word = self.next()?;
            depth += i32::from(word.is_sign('(')) - i32::from(word.is_sign(')'));
        }
        Some(Self { words: self.words[from..self.at - 1].to_vec(), at: 0 })
    }

    /// What is left, cut at the commas outside of parentheses.
    pub fn split_commas(&self) -> Vec<Self> {
        let mut parts = vec![Vec::new()];
        let mut depth = 0;
        for word in self.rest() {
            depth += i32::from(word.is_sign('(')) - i32::from(word.is_sign(')'));
            if depth == 0 && word.is_sign(',') {
                parts.push(Vec::new());
            } else if let Some(part) = parts.last_mut() {
                part.push(word.clone());
            }
        }
        parts.into_iter().filter(|part| !part.is_empty()).map(|words| Self { words, at: 0 }).collect()
    }

    /// Takes `FIRST` or `AFTER <column>` from the end.
    pub fn place(&mut self) -> Option<Place> {
        match self.rest() {
            [.., word] if word.is("FIRST") => {
                self.words.pop();
                Some(Place::First)
            }
            [.., after, column] if after.is("AFTER") => {
                let place = Place::After(column.name()?.to_owned());
                self.words.truncate(self.words.len() - 2);
                Some(place)
            }
            _ => None,
        }
    }
}

/// Where a column goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    First,
    After(String),
}
