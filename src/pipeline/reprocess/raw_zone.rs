//! A raw zone as a source: the records of all sources in the old log's order, under the spans that were read then.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::databases::Databases;
use super::epoch_in_hand::EpochInHand;
use super::resume::Resume;
use super::survey::Survey;
use crate::epoch::{EpochNumber, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Log, RawFile};
use crate::progress::{Partition, Progress};
use crate::source::{Lag, Polled, Source};

/// Epochs that are fetched at the same time, when their files are small.
const AHEAD: usize = 16;

type Fetched = (Arc<Manifest>, Option<RawFile>);

struct Ahead {
    n: EpochNumber,
    bytes: u64,
    task: JoinHandle<Result<Fetched>>,
}

/// The raw zone of an old lake.
pub struct RawZone {
    old: Log,
    survey: Arc<Survey>,
    databases: Databases,
    /// Bytes of raw files that may be fetched ahead; one file always may.
    limit: u64,
    resume: Resume,
    /// What the target holds is still to be passed over.
    seeking: bool,
    /// The next epoch to fetch.
    next: EpochNumber,
    ahead: VecDeque<Ahead>,
    epoch: Option<EpochInHand>,
    /// The stream of each partition, for spans without records.
    streams: HashMap<Partition, Arc<str>>,
    caught_up_said: bool,
}

impl RawZone {
    /// Goes on where `target` stands, and ends at the head that was surveyed. `inflight_bytes` bounds what is fetched
    /// ahead; a raw file that is larger is fetched alone.
    pub fn new(old: Log, survey: Arc<Survey>, databases: Databases, target: &Progress, inflight_bytes: u64) -> Self {
        Self {
            old,
            databases,
            limit: inflight_bytes / 2,
            resume: Resume::at(target, &survey.before),
            seeking: true,
            next: survey.first,
            survey,
            ahead: VecDeque::new(),
            epoch: None,
            streams: HashMap::new(),
            caught_up_said: false,
        }
    }

    /// Passes over the epochs that the target holds wholly, by their manifests alone.
    async fn seek(&mut self) -> Result<()> {
        while self.seeking && self.next <= self.survey.head {
            let manifest = self.old.manifest(self.next).await?;
            let mut resume = self.resume.clone();
            if resume.opens(&manifest) {
                break;
            }
            self.resume = resume;
            self.next += 1;
        }
        self.seeking = false;
        Ok(())
    }

    fn size(&self, n: EpochNumber) -> u64 {
        let index = n.checked_sub(self.survey.begin).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.survey.sizes.get(index)).copied().unwrap_or(0)
    }

    fn fetch(&self, n: EpochNumber) -> Ahead {
        let old = self.old.clone();
        let task = tokio::spawn(async move {
            let manifest = old.manifest(n).await?;
            let file = match &manifest.raw {
                Some(file) => Some(old.lake().open_raw(file).await?),
                None => None,
            };
            Ok((manifest, file))
        });
        Ahead { n, bytes: self.size(n), task }
    }

    fn fetch_ahead(&mut self) {
        let mut held: u64 = self.ahead.iter().map(|ahead| ahead.bytes).sum();
        while self.next <= self.survey.head && self.ahead.len() < AHEAD {
            let bytes = self.size(self.next);
            if !self.ahead.is_empty() && held + bytes > self.limit {
                break;
            }
            held += bytes;
            self.ahead.push_back(self.fetch(self.next));
            self.next += 1;
        }
    }

    /// The next epoch, when its file is here; `None` at the end. Cancel-safe.
    async fn open_next(&mut self) -> Result<Option<EpochInHand>> {
        self.seek().await?;
        self.fetch_ahead();
        let Some(front) = self.ahead.front_mut() else { return Ok(None) };
        let fetched = (&mut front.task).await;
        let n = front.n;
        self.ahead.pop_front();
        let fetched = fetched.unwrap_or_else(|panic| {
            Err(Error::new(ErrorKind::Internal, "the task that fetches raw files ended").because(panic))
        });
        match fetched {
            Ok((manifest, file)) => Ok(Some(EpochInHand::begin(manifest, file, &self.databases, &mut self.resume))),
            Err(error) => {
                // Asked again after a pause, when it is one of those that pass.
                let again = self.fetch(n);
                self.ahead.push_front(again);
                Err(error.doing(format!("read the raw records of epoch {n}")))
            }
        }
    }

    fn forget(&mut self) {
        self.ahead.drain(..).for_each(|ahead| ahead.task.abort());
        self.epoch = None;
    }
}

#[async_trait]
impl Source for RawZone {
    async fn next(&mut self) -> Result<Polled> {
        loop {
            if let Some(epoch) = &mut self.epoch {
                let streams = &mut self.streams;
                if let Some(batch) = tokio::task::block_in_place(|| epoch.step(streams))? {
                    return Ok(Polled::Batch(batch));
                }
                self.epoch = None;
            }
            self.epoch = self.open_next().await?;
            if self.epoch.is_none() {
                if self.caught_up_said {
                    std::future::pending::<()>().await;
                }
                self.caught_up_said = true;
                return Ok(Polled::CaughtUp);
            }
        }
    }

    /// The raw zone's retention is its own.
    async fn release(&mut self, _committed: &Progress) -> Result<()> {
        Ok(())
    }

    async fn rewind(&mut self, committed: &Progress) -> Result<()> {
        self.forget();
        self.resume = Resume::at(committed, &self.survey.before);
        (self.seeking, self.next) = (true, self.survey.first);
        self.caught_up_said = false;
        Ok(())
    }

    fn lag(&self) -> Vec<Lag> {
        Vec::new()
    }
}

impl Drop for RawZone {
    fn drop(&mut self) {
        self.forget();
    }
}
