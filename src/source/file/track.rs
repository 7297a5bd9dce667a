//! The files that are being read, how far each has come, and how they are found again under other names.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::read::{Line, Lines, MAX_LINE_BYTES, Opened, Packing, Place, fingerprint, is_unfinished};
use super::scan::{Found, Pattern};
use crate::batch::{NO_TIME, RawBatch, RawRecords};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Generation, Partition, Position, Progress, Span, Standing};
use crate::source::Lag;

const BATCH_BYTES: usize = 1 << 20;
const BATCH_RECORDS: usize = 10_000;
/// Followed files that are kept open, so that they can be read to their end when they are deleted.
const MAX_OPEN_FILES: usize = 512;

/// What tells one file from another: it keeps both when it is renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    inode: u64,
    head: u64,
}

impl Identity {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (inode, head) = (parts.next()?, parts.next()?);
        Some(Self { inode: u64::from_str_radix(inode, 16).ok()?, head: u64::from_str_radix(head, 16).ok()? })
    }
}

/// One file that has a partition.
struct Tracked {
    partition: Partition,
    /// Its name when it was first seen.
    relative: String,
    identity: Identity,
    generation: Generation,
    place: Place,
    /// Where it is now; `None` when it is nowhere to be found.
    path: Option<PathBuf>,
    packing: Packing,
    /// Differs from the identity's when the file was copied or restored.
    inode: u64,
    /// Kept open while a file is followed, so that one that was deleted or renamed can be read to its end.
    file: Option<Arc<File>>,
    lines: Option<Lines>,
    /// Bytes on disk when its end was reached.
    ended_at: Option<u64>,
    /// Nothing more is expected of it: read to its end without `follow`, or gone.
    finished: bool,
    /// Bytes after the last line end, which wait for the rest of their line.
    rest: usize,
}

impl Tracked {
    /// A file that was read up to `place` and is still to be found.
    fn new(partition: Partition, relative: String, identity: Identity, generation: Generation, place: Place) -> Self {
        Self {
            partition,
            relative,
            identity,
            generation,
            place,
            path: None,
            packing: Packing::Plain,
            inode: identity.inode,
            file: None,
            lines: None,
            ended_at: None,
            finished: false,
            rest: 0,
        }
    }

    fn bytes_on_disk(&self) -> Option<u64> {
        let meta = match (&self.file, &self.path) {
            (Some(file), _) => file.metadata(),
            (None, Some(path)) => fs::metadata(path),
            (None, None) => return None,
        };
        meta.ok().map(|meta| meta.len())
    }

    fn is_readable(&self) -> bool {
        self.file.is_some() || self.path.is_some()
    }

    /// Whether everything that is on disk has been handed out, but for a last line that is not complete.
    fn at_end(&self) -> bool {
        self.finished || !self.is_readable() || (self.ended_at.is_some() && self.ended_at == self.bytes_on_disk())
    }

    fn shown(&self) -> String {
        self.path.as_ref().map_or_else(|| self.relative.clone(), |path| path.display().to_string())
    }

    fn go_to(&mut self, place: Place) {
        self.place = place;
        self.lines = None;
        self.ended_at = None;
        self.finished = false;
    }
}

/// What one step found.
pub(super) enum Step {
    Batch(RawBatch),
    /// Nothing more is there now.
    End,
}

/// The reader of a file source. Blocking: runs on threads that may block.
pub(super) struct Engine {
    name: Arc<str>,
    stream: Option<Arc<str>>,
    pattern: Pattern,
    follow: bool,
    tracked: Vec<Tracked>,
    next_generation: Generation,
    /// The file whose turn it is.
    turn: usize,
}

impl Engine {
    /// The files of `pattern`, from where `progress` says they stand.
    pub(super) fn open(
        name: &str,
        pattern: Pattern,
        stream: Option<&str>,
        follow: bool,
        progress: &Progress,
    ) -> Result<Self> {
        let mut engine = Self {
            name: name.into(),
            stream: stream.map(Into::into),
            pattern,
            follow,
            tracked: Vec::new(),
            next_generation: 0,
            turn: 0,
        };
        for (partition, standing) in progress.of_source(name) {
            engine.resume(partition, standing)?;
        }
        engine.scan()?;
        Ok(engine)
    }

    /// Whether any file was ever there.
    pub(super) fn is_empty(&self) -> bool {
        self.tracked.is_empty()
    }

    fn resume(&mut self, partition: &Partition, standing: &Standing) -> Result<()> {
        let parts = partition.name.rsplit_once('#').and_then(|(name, id)| Some((name, Identity::parse(id)?)));
        let (Some((relative, identity)), Some(place)) = (parts, Place::parse(&standing.position.0)) else {
            return Err(Error::new(
                ErrorKind::LogCorrupt,
                format!("the log's entry `{partition}` at `{}` is not one of a file source", standing.position),
            )
            .help("a source keeps its kind: give the changed source another name in the topology"));
        };
        self.next_generation = self.next_generation.max(standing.generation.saturating_add(1));
        let tracked = Tracked::new(partition.clone(), relative.to_owned(), identity, standing.generation, place);
        self.tracked.push(tracked);
        // New files get higher generations, so this is the order in which files were picked up.
        self.tracked.sort_by_key(|t| t.generation);
        Ok(())
    }

    /// Looks at what is there: finds known files again, detects truncation, picks up new files.
    pub(super) fn scan(&mut self) -> Result<()> {
        let listed = self.pattern.list().map_err(|error| self.unreadable("look for files", error))?;
        for index in 0..self.tracked.len() {
            if !self.tracked[index].finished && !self.is_in_place(index)? {
                self.locate(index, &listed)?;
            }
        }
        let held: HashSet<u64> = self.tracked.iter().filter(|t| t.path.is_some()).map(|t| t.inode).collect();
        for found in listed.into_iter().filter(|found| !held.contains(&found.inode)) {
            self.pick_up(found)?;
        }
        Ok(())
    }

    /// Whether the file is still under the path where it was, and has not shrunk.
    fn is_in_place(&self, index: usize) -> Result<bool> {
        let tracked = &self.tracked[index];
        let Some(path) = &tracked.path else { return Ok(false) };
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.unreadable(&format!("look at {}", path.display()), error)),
        };
        let least = match tracked.packing {
            Packing::Plain => tracked.place.offset,
            _ => tracked.ended_at.unwrap_or(0),
        };
        Ok(meta.ino() == tracked.inode && meta.len() >= least)
    }

    /// Finds a known file: under its own name or another, recognised by inode, first line and the bytes that were read
    /// last. What is there but no longer holds what was read is an error; what is gone is said.
    fn locate(&mut self, index: usize, listed: &[Found]) -> Result<()> {
        let tracked = &self.tracked[index];
        let home = self.pattern.resolve(&tracked.relative);
        let near = Pattern::siblings(&home).map_err(|error| self.unreadable("look for renamed files", error))?;
        let mut spoiled = None;
        let mut match_found = None;
        for found in listed.iter().chain(&near) {
            if self.tracked.iter().enumerate().any(|(i, t)| i != index && t.holds(found)) {
                continue;
            }
            let same_inode = found.inode == tracked.identity.inode;
            if !same_inode && found.path != home && !is_near(&near, found) {
                continue;
            }
            match compare(found, tracked.identity.head, tracked.place, self.follow)
                .map_err(|error| self.unreadable(&format!("compare {}", found.path.display()), error))?
            {
                Likeness::Same(file) => {
                    match_found = Some((found.clone(), file));
                    break;
                }
                // The same inode and the same first line, or cut before the end of the first line.
                Likeness::Spoiled(why) if same_inode => spoiled = spoiled.or(Some((found.path.clone(), why))),
                Likeness::Spoiled(_) | Likeness::Other => {}
            }
        }
        if let Some((found, file)) = match_found {
            self.settle(index, found, file);
            return Ok(());
        }
        if let Some((path, why)) = spoiled {
            return Err(self.position_lost(index, &path, why));
        }
        self.lose(index);
        Ok(())
    }

    fn lose(&mut self, index: usize) {
        let tracked = &mut self.tracked[index];
        tracked.path = None;
        if tracked.file.is_some() {
            tracing::info!(partition = %tracked.partition, "the file is gone; it is open here and is read to its end");
        } else if !tracked.finished {
            tracing::warn!(partition = %tracked.partition, position = tracked.place.offset,
                "the file that was read up to here is gone; whether it held more cannot be known");
            tracked.finished = true;
        }
    }

    fn position_lost(&self, index: usize, path: &std::path::Path, why: &str) -> Error {
        let tracked = &self.tracked[index];
        Error::new(
            ErrorKind::PositionLost,
            format!(
                "{} was truncated or rewritten: {why} {}, up to where it was read (partition {})",
                path.display(),
                tracked.place.offset,
                tracked.partition
            ),
        )
        .help(
            "put the file back as it was; or, if the new content is to be read as a new file, write it to a new file \
             (another name, or remove and create it with another first line). To rotate, rename and create",
        )
    }

    fn pick_up(&mut self, found: Found) -> Result<()> {
        // What stands in the old file comes before what stands in the one that took its name. Without `follow` the
        // order of `tracked` sees to that, and there is no later scan.
        if self.follow && self.tracked.iter().any(|t| t.relative == found.relative && !t.at_end()) {
            return Ok(());
        }
        let doing = format!("open {}", found.path.display());
        let Some(file) = open(&found).map_err(|error| self.unreadable(&doing, error))? else { return Ok(()) };
        let head = fingerprint(&file, Packing::of(&found.path), !self.follow)
            .map_err(|error| self.unreadable(&doing, error))?;
        let Some(head) = head else { return Ok(()) };
        let name = format!("{}#{:x}-{head:016x}", found.relative, found.inode);
        let mut partition = Partition::new(self.name.clone(), name.clone());
        let mut again = 1;
        while let Some(index) = self.tracked.iter().position(|t| t.partition == partition) {
            // A file that was gone and came back.
            if self.tracked[index].path.is_none() {
                self.tracked[index].finished = false;
                return self.locate(index, &[found]);
            }
            // The one that had this inode was copied and lives on; the system gave its inode to another file.
            again += 1;
            partition = Partition::new(self.name.clone(), format!("{name}-{again}"));
        }
        let identity = Identity { inode: found.inode, head };
        let generation = self.next_generation;
        self.next_generation = generation.saturating_add(1);
        self.tracked.push(Tracked::new(partition, found.relative.clone(), identity, generation, Place::START));
        self.settle(self.tracked.len() - 1, found, file);
        Ok(())
    }

    fn settle(&mut self, index: usize, found: Found, file: Arc<File>) {
        let open = self.tracked.iter().filter(|t| t.file.is_some()).count();
        let tracked = &mut self.tracked[index];
        tracked.packing = Packing::of(&found.path);
        tracked.inode = found.inode;
        tracked.path = Some(found.path);
        tracked.file = (self.follow && open < MAX_OPEN_FILES).then_some(file);
        tracked.lines = None;
        tracked.ended_at = None;
        tracked.finished = false;
    }

    /// The next batch of the file whose turn it is; a file is read to its end before the next one.
    pub(super) fn step(&mut self) -> Result<Step> {
        for _ in 0..self.tracked.len() {
            let index = self.turn % self.tracked.len();
            if let Some(batch) = self.read(index)? {
                return Ok(Step::Batch(batch));
            }
            self.turn = (index + 1) % self.tracked.len();
        }
        Ok(Step::End)
    }

    fn read(&mut self, index: usize) -> Result<Option<RawBatch>> {
        if self.tracked[index].lines.is_none() && (self.tracked[index].at_end() || !self.open_lines(index)?) {
            return Ok(None);
        }
        // Taken before reading: what is appended meanwhile is seen as a difference afterwards.
        let bytes = self.tracked[index].bytes_on_disk();
        let follow = self.follow;
        let tracked = &mut self.tracked[index];
        let Some(lines) = tracked.lines.as_mut() else { return Ok(None) };
        let mut records = RawRecords::default();
        let outcome = fill(lines, &mut records, follow);
        let place = lines.place();
        match outcome {
            Ok(Filled::Enough) => {}
            Ok(Filled::TooLong(offset)) => return Err(line_too_long(&tracked.shown(), offset)),
            // A packed file that is being written: its next block is not whole yet.
            Err(error) if !(is_unfinished(&error) && follow) => {
                let doing = format!("read {} after byte {} of its content", tracked.shown(), place.offset);
                tracked.lines = None;
                return Err(self.unreadable(&doing, error));
            }
            Ok(Filled::End { rest }) => tracked.end(bytes, rest, follow),
            Err(_unfinished) => tracked.end(bytes, 0, follow),
        }
        if place == tracked.place {
            return Ok(None);
        }
        let span = Span { from: position(tracked.place), to: position(place) };
        tracked.place = place;
        Ok(Some(RawBatch {
            partition: tracked.partition.clone(),
            generation: tracked.generation,
            span,
            stream: self.stream.clone(),
            records,
            inside_transaction: false,
        }))
    }

    /// Opens a file where it stands; `false` when what was read is not there any more (and that is no error).
    fn open_lines(&mut self, index: usize) -> Result<bool> {
        let tracked = &self.tracked[index];
        let doing = |error| self.unreadable(&format!("read {}", tracked.shown()), error);
        let file = match (&tracked.file, &tracked.path) {
            (Some(file), _) => file.clone(),
            (None, Some(path)) => match File::open(path) {
                Ok(file) if file.metadata().map_err(doing)?.ino() == tracked.inode => Arc::new(file),
                Ok(_) => return self.spoiled(index).map(|()| false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.spoiled(index).map(|()| false),
                Err(error) => return Err(doing(error)),
            },
            (None, None) => return Ok(false),
        };
        match Lines::open(&file, tracked.packing, tracked.place).map_err(doing)? {
            Opened::At(lines) => {
                self.tracked[index].lines = Some(lines);
                Ok(true)
            }
            Opened::Shorter | Opened::Changed => self.spoiled(index).map(|()| false),
        }
    }

    /// What stood before the position is not there any more: a new file under the old name, or a lost position.
    fn spoiled(&mut self, index: usize) -> Result<()> {
        let listed = self.pattern.list().map_err(|error| self.unreadable("look for files", error))?;
        let tracked = &mut self.tracked[index];
        tracked.file = None;
        tracked.path = None;
        self.locate(index, &listed)
    }

    /// Everything from `committed` on is handed out again.
    pub(super) fn rewind(&mut self, committed: &Progress) -> Result<()> {
        for tracked in &mut self.tracked {
            let standing = committed.get(&tracked.partition);
            let place = standing.map_or(Some(Place::START), |standing| Place::parse(&standing.position.0));
            let place = place.ok_or_else(|| {
                Error::new(
                    ErrorKind::LogCorrupt,
                    format!("the log's position of {} is not readable", tracked.partition),
                )
            })?;
            tracked.go_to(place);
        }
        let known: Vec<_> = self.tracked.iter().map(|t| t.partition.clone()).collect();
        for (partition, standing) in committed.of_source(&self.name.clone()) {
            if !known.contains(partition) {
                self.resume(partition, standing)?;
            }
        }
        self.turn = 0;
        self.scan()
    }

    /// Forgets files that are gone and wholly committed.
    pub(super) fn release(&mut self, committed: &Progress) {
        self.tracked.retain(|t| {
            let durable = committed.get(&t.partition).is_some_and(|standing| standing.position == position(t.place));
            let forget = t.path.is_none() && t.at_end() && durable;
            if forget && t.rest > 0 {
                tracing::warn!(partition = %t.partition, bytes = t.rest,
                    "the file is gone and its last line was never completed: that line was not read");
            }
            !forget
        });
    }

    /// Bytes that are on disk and were not handed out; of packed files only that there is nothing more.
    pub(super) fn lag(&self) -> Vec<Lag> {
        let behind = |t: &Tracked| match t.packing {
            _ if t.finished => Some(0),
            Packing::Plain => Some(t.bytes_on_disk().unwrap_or(0).saturating_sub(t.place.offset)),
            Packing::Gzip | Packing::Zstd => t.at_end().then_some(0),
        };
        self.tracked.iter().filter_map(|t| Some(Lag { partition: t.partition.clone(), behind: behind(t)? })).collect()
    }

    fn unreadable(&self, doing: &str, error: io::Error) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, PermissionDenied, UnexpectedEof};
        let help = match error.kind() {
            UnexpectedEof => {
                "the compressed file ends in the middle: write it under a name that the source does not read, and rename \
                 it when it is complete"
            }
            PermissionDenied => "let this process's user read the file and its folder",
            // The zstd library says `Other` for damaged data.
            InvalidData | InvalidInput | Other => {
                "the file is damaged or not what its name says (.gz, .zst): repair it, or give it its right name"
            }
            _ => {
                return Error::new(ErrorKind::SourceUnavailable, format!("source {}: {doing}", self.name))
                    .because(error);
            }
        };
        Error::new(ErrorKind::SourceRefused, format!("source {}: {doing}", self.name)).because(error).help(help)
    }
}

impl Tracked {
    /// Its end was reached when it had `bytes` on disk.
    fn end(&mut self, bytes: Option<u64>, rest: usize, follow: bool) {
        self.lines = None;
        self.ended_at = bytes;
        self.rest = rest;
        self.finished = !follow;
    }

    fn holds(&self, found: &Found) -> bool {
        self.path.is_some() && self.inode == found.inode
    }
}

fn is_near(near: &[Found], found: &Found) -> bool {
    near.iter().any(|n| n.path == found.path || n.inode == found.inode)
}

enum Likeness {
    /// The file that was read, open.
    Same(Arc<File>),
    /// It begins in the same way, or is too short to tell, but does not hold what was read.
    Spoiled(&'static str),
    Other,
}

fn compare(found: &Found, head: u64, place: Place, follow: bool) -> io::Result<Likeness> {
    let Some(file) = open(found)? else { return Ok(Likeness::Other) };
    let packing = Packing::of(&found.path);
    match fingerprint(&file, packing, !follow)? {
        Some(other) if other != head => return Ok(Likeness::Other),
        None if place.offset > found.bytes => return Ok(Likeness::Spoiled("it ends before byte")),
        _ => {}
    }
    Ok(match Lines::open(&file, packing, place)? {
        Opened::At(_) => Likeness::Same(file),
        Opened::Shorter => Likeness::Spoiled("it ends before byte"),
        Opened::Changed => Likeness::Spoiled("other bytes stand before byte"),
    })
}

fn open(found: &Found) -> io::Result<Option<Arc<File>>> {
    match File::open(&found.path) {
        Ok(file) => {
            // Renamed between the listing and now: the next scan sees it.
            let same = file.metadata()?.ino() == found.inode;
            Ok(same.then(|| Arc::new(file)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

enum Filled {
    Enough,
    End { rest: usize },
    TooLong(u64),
}

/// Reads whole lines until the batch is large enough or the stream ends.
fn fill(lines: &mut Lines, records: &mut RawRecords, follow: bool) -> io::Result<Filled> {
    while records.bytes() < BATCH_BYTES && records.len() < BATCH_RECORDS {
        match lines.next()? {
            Line::Whole { offset, bytes } => push(records, offset, bytes),
            Line::TooLong { offset } => return Ok(Filled::TooLong(offset)),
            Line::End { rest } => {
                // A file that is being written ends anywhere; one that is not ends with a record.
                if rest > 0
                    && !follow
                    && let Line::Whole { offset, bytes } = lines.rest()
                {
                    push(records, offset, bytes);
                }
                return Ok(Filled::End { rest });
            }
        }
    }
    Ok(Filled::Enough)
}

fn push(records: &mut RawRecords, offset: u64, line: &[u8]) {
    if !line.trim_ascii().is_empty() {
        records.push(offset, NO_TIME, None, Some(line));
    }
}

fn position(place: Place) -> Position {
    Position(place.to_text())
}

fn line_too_long(path: &str, offset: u64) -> Error {
    Error::new(
        ErrorKind::SourceRefused,
        format!("{path}: the line at byte {offset} is longer than {} MiB", MAX_LINE_BYTES >> 20),
    )
    .help("the file must hold one JSON document per line; a file with one large array is not JSON lines")
}
