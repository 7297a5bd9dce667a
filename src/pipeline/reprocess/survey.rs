//! What an old lake's raw zone has to give: looked through before anything is written.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};

use super::resume::Resume;
use super::{advances, records_by_source};
use crate::epoch::{DataFile, EpochNumber, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Log, RawFiles};
use crate::progress::Progress;

/// Manifests that are read at the same time.
const READ_AHEAD: usize = 16;

/// What the old log says, from its first manifest to its head.
#[derive(Debug)]
pub struct Survey {
    /// Where a person said to begin.
    pub first: EpochNumber,
    /// The first epoch that anything is still to be read of; behind `head` when there is none.
    pub begin: EpochNumber,
    /// The old log's newest epoch.
    pub head: EpochNumber,
    /// Bytes of the raw files of `begin` and the epochs after it.
    pub sizes: Vec<u64>,
    /// The first raw file that is still to be read.
    pub first_file: Option<DataFile>,
    /// Where everything stood before the epoch that a person said to begin with.
    pub before: Progress,
    /// Where everything stands at `head`.
    pub end: Progress,
    /// Records from the epoch that a person said to begin with to `head`, by source.
    pub records: BTreeMap<String, u64>,
    /// Records before that epoch.
    pub skipped: u64,
}

/// Epochs that follow each other and lack their raw records.
#[derive(Debug)]
struct Missing {
    first: EpochNumber,
    last: EpochNumber,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    /// Whether there was a file once.
    expired: bool,
}

/// Looks the log through. `first` is where a person said to begin; `target` is where the new log stands.
///
/// # Errors
/// `Config` when raw records are missing between what the target holds and the head (which epochs, and what can be
/// done), or when the target has read something that the old log has not.
pub async fn survey(old: &Log, files: &RawFiles, first: EpochNumber, target: &Progress) -> Result<Survey> {
    let head = old.state().n;
    let mut look = Look {
        survey: Survey {
            first,
            begin: head + 1,
            head,
            sizes: Vec::new(),
            first_file: None,
            before: Progress::default(),
            end: Progress::default(),
            records: BTreeMap::new(),
            skipped: 0,
        },
        resume: Resume::at(target, &Progress::default()),
        missing: Vec::new(),
        begun: target.iter().next().is_some(),
    };
    let mut manifests = std::pin::pin!(futures::stream::iter(1..=head).map(|n| old.manifest(n)).buffered(READ_AHEAD));
    while let Some(manifest) = manifests.try_next().await? {
        if manifest.n == first {
            look.resume.pass(&look.survey.before);
        }
        if manifest.n < first { look.before(&manifest)? } else { look.at(&manifest, files)? }
    }
    look.refuse_strangers()?;
    look.refuse_holes(old)?;
    Ok(look.survey)
}

struct Look {
    survey: Survey,
    resume: Resume,
    missing: Vec<Missing>,
    /// Whether the target holds something: then it is decided where to begin.
    begun: bool,
}

impl Look {
    fn before(&mut self, manifest: &Manifest) -> Result<()> {
        advance(&mut self.survey.before, manifest)?;
        advance(&mut self.survey.end, manifest)?;
        self.survey.skipped += records_by_source(manifest).map(|(_, read)| read).sum::<u64>();
        Ok(())
    }

    fn at(&mut self, manifest: &Manifest, files: &RawFiles) -> Result<()> {
        let survey = &mut self.survey;
        advance(&mut survey.end, manifest)?;
        let mut read = 0;
        for (source, records) in records_by_source(manifest) {
            *survey.records.entry(source.to_owned()).or_default() += records;
            read += records;
        }
        if self.resume.opens(manifest) && survey.begin > manifest.n {
            survey.begin = manifest.n;
        }
        if survey.begin > survey.head {
            return Ok(());
        }
        survey.sizes.push(manifest.raw.as_ref().map_or(0, |file| file.bytes));
        if read == 0 {
            return Ok(());
        }
        match &manifest.raw {
            Some(file) if files.hold(file) => {
                survey.first_file.get_or_insert_with(|| file.clone());
            }
            gone => self.note_missing(manifest, gone.is_some()),
        }
        Ok(())
    }

    fn note_missing(&mut self, manifest: &Manifest, expired: bool) {
        match self.missing.last_mut() {
            Some(last) if last.last + 1 == manifest.n && last.expired == expired => {
                (last.last, last.until) = (manifest.n, manifest.sealed_at);
            }
            _ => self.missing.push(Missing {
                first: manifest.n,
                last: manifest.n,
                since: manifest.sealed_at,
                until: manifest.sealed_at,
                expired,
            }),
        }
    }

    fn refuse_strangers(&self) -> Result<()> {
        let Some((partition, position)) = self.resume.stranger() else { return Ok(()) };
        let what =
            format!("partition {partition} stands at {position} in the new lake, where no epoch of the old one ended");
        Err(Error::new(ErrorKind::Config, what).help(
            "the new lake reads the live source already: nothing more can come from the raw zone. To build it again, \
             name another new lake and warehouse schema",
        ))
    }

    fn refuse_holes(&self, old: &Log) -> Result<()> {
        let Some(last) = self.missing.last() else { return Ok(()) };
        let url = old.lake().url();
        let what = format!("{url} does not have the raw records of {}", self.holes());
        let restore = "restore these files from a copy of the lake";
        let help = if last.last == self.survey.head && !last.expired {
            "set `lake.raw.keep` to `plain` or `encrypted` in the old topology; what it has read without cannot be had \
             from its lake"
                .to_owned()
        } else if last.last == self.survey.head {
            restore.to_owned()
        } else if self.begun {
            format!("{restore}, or begin again with another new lake")
        } else {
            format!(
                "{restore}; or, when nothing that came before epoch {0} is needed (every table was read by a new \
                 snapshot since), --from {0}",
                last.last + 1
            )
        };
        Err(Error::new(ErrorKind::Config, what).help(help))
    }

    fn holes(&self) -> String {
        let hole = |missing: &Missing| {
            let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S UTC");
            let why = if missing.expired { "deleted, see lake.raw.retention" } else { "not kept" };
            if missing.first == missing.last {
                format!("epoch {} ({}; {why})", missing.first, time(missing.since))
            } else {
                let (since, until) = (time(missing.since), time(missing.until));
                format!("epochs {} to {} ({since} to {until}; {why})", missing.first, missing.last)
            }
        };
        const SHOWN: usize = 5;
        let mut text = self.missing.iter().take(SHOWN).map(hole).collect::<Vec<_>>().join(", ");
        if self.missing.len() > SHOWN {
            text += &format!(" and {} more ranges", self.missing.len() - SHOWN);
        }
        text
    }
}

fn advance(progress: &mut Progress, manifest: &Manifest) -> Result<()> {
    for advance in advances(manifest) {
        progress.advance(&advance).map_err(|error| {
            Error::new(ErrorKind::LogCorrupt, format!("manifest {} of the old lake does not join on", manifest.n))
                .because(error)
        })?;
    }
    Ok(())
}
