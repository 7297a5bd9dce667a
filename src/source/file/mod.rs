//! JSON lines in files: plain, gzip or zstd; a file, a folder or a glob; followed or read once.
//!
//! | file | what it owns |
//! |---|---|
//! | `mod.rs` | the [`Source`]: the bridge between tasks and blocking reads |
//! | `track.rs` | which files are read, how far, and how they are found again |
//! | `read.rs` | lines out of one file from any place |
//! | `scan.rs` | which files a path means |
//!
//! # Partitions and positions
//!
//! A file is a partition, named `<relative path>#<inode>-<hash of the first line>` (and `-2`, `-3` if that was taken). A position is
//! `<byte offset in the uncompressed stream>:<hash of the (at most 1 KiB of) bytes before it>`, so the log itself tells
//! whether a file still holds what was read.
//!
//! | what is seen | what it is |
//! |---|---|
//! | the same inode and first line, the bytes before the position as they were, under any name | the same file |
//! | the same name, first line and bytes, another inode | the same file, copied or restored |
//! | another first line, or another inode and other bytes | another file: a new partition; the old one is looked for beside it (`x.1`, `x-2026…`) and finished first |
//! | the same inode and first line, but shorter or with other bytes before the position | truncated or rewritten: [`PositionLost`](crate::error::ErrorKind::PositionLost) |
//!
//! What cannot be noticed: that a file which is gone for good had more in it than was read. It is said in the log. While
//! a file is followed it is kept open, so that a deleted one is still read to its end.
//!
//! # Generations
//!
//! Byte offsets of two files cannot be compared, so every file that is picked up gets the next generation of its
//! source: of one key, the later file wins. Files that are there together are taken in the order of their names, rotated
//! files (`x.2`, `x.1`, `x`) oldest first.

mod read;
mod scan;
mod track;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::{Lag, Polled, Source};
use crate::config::FileSource;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Progress, Standings};
use scan::Pattern;
use track::{Engine, Step};

/// How often a followed source looks for more.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// JSON lines in files.
pub struct Files {
    /// Away while a blocking read is under way.
    engine: Option<Engine>,
    /// The read under way; kept across dropped futures, so that its batch is not lost.
    reading: Option<JoinHandle<(Engine, Result<Step>)>>,
    follow: bool,
    caught_up_said: bool,
    last_scan: tokio::time::Instant,
    lag: Vec<Lag>,
}

impl Files {
    /// Finds the files of the source `name` and where the log says that they stand.
    ///
    /// # Errors
    /// `Config` for a path that is no glob, `SourceRefused` when nothing is there and nothing is awaited,
    /// `PositionLost` when a file no longer holds what was read of it.
    pub async fn open(name: &str, config: &FileSource, standings: Arc<dyn Standings>) -> Result<Self> {
        let progress = standings.latest().await?;
        let (source, settings) = (name.to_owned(), config.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let pattern = Pattern::new(&settings.path)?;
            Engine::open(&source, pattern, settings.stream.as_deref(), settings.follow, &progress)
        });
        let engine = opened.await.map_err(task_failed)??;
        if engine.is_empty() && !config.follow {
            return Err(Error::new(
                ErrorKind::SourceRefused,
                format!("source {name}: `{}` names no file with anything in it", config.path),
            )
            .help(
                "correct `path` (a relative path begins where the process was started), or say `follow: true` to wait",
            ));
        }
        let lag = engine.lag();
        let last_scan = tokio::time::Instant::now();
        Ok(Self { engine: Some(engine), reading: None, follow: config.follow, caught_up_said: false, last_scan, lag })
    }

    /// One blocking step; its result survives when this future is dropped.
    async fn step(&mut self) -> Result<Step> {
        if self.reading.is_none() {
            let mut engine = self.engine.take().ok_or_else(engine_lost)?;
            let scan = self.follow && self.last_scan.elapsed() >= POLL_INTERVAL;
            if scan {
                self.last_scan = tokio::time::Instant::now();
            }
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let scanned = if scan { engine.scan() } else { Ok(()) };
                let step = scanned.and_then(|()| engine.step());
                (engine, step)
            }));
        }
        self.finish_reading().await.unwrap_or_else(|| Err(engine_lost()))
    }

    async fn finish_reading(&mut self) -> Option<Result<Step>> {
        let outcome = self.reading.as_mut()?.await;
        self.reading = None;
        match outcome {
            Ok((engine, step)) => {
                self.lag = engine.lag();
                self.engine = Some(engine);
                Some(step)
            }
            Err(error) => Some(Err(task_failed(error))),
        }
    }
}

#[async_trait]
impl Source for Files {
    async fn next(&mut self) -> Result<Polled> {
        loop {
            match self.step().await? {
                Step::Batch(batch) => {
                    self.caught_up_said = false;
                    return Ok(Polled::Batch(batch));
                }
                Step::End if !self.caught_up_said => {
                    self.caught_up_said = true;
                    return Ok(Polled::CaughtUp);
                }
                Step::End if self.follow => tokio::time::sleep(POLL_INTERVAL).await,
                Step::End => std::future::pending().await,
            }
        }
    }

    async fn release(&mut self, committed: &Progress) -> Result<()> {
        // A read under way keeps what it needs; the next release comes with the next epoch.
        if let Some(engine) = &mut self.engine {
            engine.release(committed);
        }
        Ok(())
    }

    async fn rewind(&mut self, committed: &Progress) -> Result<()> {
        // What a read under way brings is handed out again.
        let _dropped = self.finish_reading().await;
        let mut engine = self.engine.take().ok_or_else(engine_lost)?;
        let committed = committed.clone();
        let rewound = tokio::task::spawn_blocking(move || {
            let outcome = engine.rewind(&committed);
            (engine, outcome)
        });
        let (engine, outcome) = rewound.await.map_err(task_failed)?;
        self.engine = Some(engine);
        self.caught_up_said = false;
        outcome
    }

    fn lag(&self) -> Vec<Lag> {
        self.lag.clone()
    }
}

fn task_failed(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "the thread that reads files ended").because(error)
}

fn engine_lost() -> Error {
    Error::new(ErrorKind::Internal, "the file reader was lost with the thread that held it")
}
