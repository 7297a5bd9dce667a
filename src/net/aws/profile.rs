//! `~/.aws/config` and `~/.aws/credentials`: settings by profile. Where both files set the same, `credentials` wins.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::chain::Environment;
use crate::error::{Error, ErrorKind, Result};

/// The settings of one profile.
pub(super) type Settings = BTreeMap<String, String>;

/// All profiles, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Profiles(BTreeMap<String, Settings>);

impl Profiles {
    /// Reads both files; one that does not exist is empty.
    pub fn read(environment: &Environment) -> Result<Self> {
        let mut profiles = Self::default();
        let files = [("AWS_CONFIG_FILE", "config", true), ("AWS_SHARED_CREDENTIALS_FILE", "credentials", false)];
        for (variable, usual, prefixed) in files {
            let named = environment.get(variable).map(PathBuf::from);
            let home = || environment.get("HOME").map(|home| PathBuf::from(home).join(".aws").join(usual));
            let Some(path) = named.or_else(home) else { continue };
            match std::fs::read_to_string(&path) {
                Ok(text) => profiles.take(&text, prefixed),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let what = format!("read the AWS profiles in {}", path.display());
                    return Err(Error::new(ErrorKind::Config, what)
                        .because(error)
                        .help(format!("make the file readable, or name another one in {variable}")));
                }
            }
        }
        Ok(profiles)
    }

    /// Adds what a file says. `prefixed`: sections are called `profile NAME`, but for `default`.
    fn take(&mut self, text: &str, prefixed: bool) {
        let mut section: Option<String> = None;
        for line in text.lines() {
            // What is indented belongs to the setting above (`s3 =`): none of ours is written so.
            if line.starts_with([' ', '\t', '#', ';']) || line.trim().is_empty() {
                continue;
            }
            if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                section = profile_name(name, prefixed);
            } else if let (Some(section), Some((name, value))) = (&section, line.split_once('=')) {
                let settings = self.0.entry(section.clone()).or_default();
                settings.insert(name.trim().to_lowercase(), without_comment(value).trim().to_owned());
            }
        }
    }

    /// The settings of a profile.
    pub fn get(&self, name: &str) -> Option<&Settings> {
        self.0.get(name)
    }

    /// The names of all profiles.
    pub fn names(&self) -> String {
        self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// The profile that a section is about; `None` for sections about something else (`sso-session`, `services`).
fn profile_name(section: &str, prefixed: bool) -> Option<String> {
    let section = section.trim();
    match section.split_once(char::is_whitespace) {
        Some(("profile", name)) if prefixed => Some(name.trim().trim_matches('"').to_owned()),
        Some(_) if prefixed => None,
        None if prefixed && section != "default" => None,
        _ => Some(section.to_owned()),
    }
}

fn without_comment(value: &str) -> &str {
    let starts = [" #", "\t#", " ;", "\t;"].iter().filter_map(|mark| value.find(mark));
    &value[..starts.min().unwrap_or(value.len())]
}
