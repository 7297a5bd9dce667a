//! Transactions that the server sends while they run: kept until it says how they end.
//!
//! ```text
//! S 7 … E  S 9 … E  S 7 … E   A 7/8      c 7                A 9
//! └─ kept, by transaction ─┘  taken back  handed out in order  forgotten
//! ```
//!
//! An entry keeps its place in the log, the (sub-)transaction that made it, and the message as it would have come after
//! the commit. What was made by a sub-transaction that was rolled back is left out when the entries are read. Places in
//! the log never go down inside a transaction, whichever way it is sent, so the order of its changes, and the place that
//! a restart goes on from, do not depend on whether the server sent it early.
//!
//! Up to [`MEMORY_BYTES`] are kept in memory over all transactions, then the largest go to files that have no name: they
//! end with the process, however it ends.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use crate::wire::pgoutput::Lsn;

/// Bytes kept in memory, over all transactions.
const MEMORY_BYTES: usize = 16 << 20;
/// Bytes read from a file at once.
const READ_BYTES: usize = 256 << 10;
/// An entry's place, transaction and length.
const HEAD_BYTES: usize = 16;

/// Why something cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("it would take more than max_spool ({0} bytes)")]
    Full(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the server sent {0}")]
    Protocol(&'static str),
}

/// All transactions that are being sent.
pub(super) struct Spools {
    folder: PathBuf,
    max_bytes: u64,
    memory_bytes: usize,
    bytes: u64,
    in_memory: usize,
    open: HashMap<u32, Spool>,
}

/// What has come of one transaction.
#[derive(Default)]
pub(super) struct Spool {
    file: Option<File>,
    in_file: u64,
    tail: Vec<u8>,
    newest: Lsn,
    rolled_back: HashSet<u32>,
}

impl Spools {
    /// Keeps at most `max_bytes` in `folder` and in memory.
    pub fn new(folder: PathBuf, max_bytes: u64) -> Self {
        Self { folder, max_bytes, memory_bytes: MEMORY_BYTES, bytes: 0, in_memory: 0, open: HashMap::new() }
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of transactions that are being sent.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Begins a segment of `xid`; `first` when nothing of it has come before.
    pub fn begin(&mut self, xid: u32, first: bool) -> Result<(), Trouble> {
        match (first, self.open.contains_key(&xid)) {
            (true, true) => Err(Trouble::Protocol("the beginning of a running transaction twice")),
            (false, false) => Err(Trouble::Protocol("a part of a running transaction whose beginning did not come")),
            (true, false) => {
                self.open.insert(xid, Spool::default());
                Ok(())
            }
            (false, true) => Ok(()),
        }
    }

    /// Keeps a message of the transaction `xid`, as it came: with the number of its sub-transaction behind its tag.
    pub fn push(&mut self, xid: u32, lsn: Lsn, message: &[u8]) -> Result<(), Trouble> {
        let Some((tag, rest)) = message.split_first() else { return Err(Trouble::Protocol("an empty message")) };
        let Some((made_by, rest)) = rest.split_first_chunk::<4>() else {
            return Err(Trouble::Protocol("a message of a running transaction without a transaction"));
        };
        let added = HEAD_BYTES + 1 + rest.len();
        if self.bytes + added as u64 > self.max_bytes {
            return Err(Trouble::Full(self.max_bytes));
        }
        let spool = self.open.get_mut(&xid).ok_or(Trouble::Protocol("a message outside of its transaction"))?;
        // What describes a relation bears no place; it belongs to what comes next.
        let lsn = if lsn == Lsn(0) { spool.newest } else { lsn };
        if lsn < spool.newest {
            return Err(Trouble::Protocol("changes of one transaction out of their order"));
        }
        spool.newest = lsn;
        spool.tail.extend(lsn.0.to_be_bytes());
        spool.tail.extend(made_by);
        spool.tail.extend((1 + rest.len() as u32).to_be_bytes());
        spool.tail.push(*tag);
        spool.tail.extend_from_slice(rest);
        self.bytes += added as u64;
        self.in_memory += added;
        while self.in_memory > self.memory_bytes {
            self.write_largest()?;
        }
        Ok(())
    }

    fn write_largest(&mut self) -> Result<(), Trouble> {
        let Some(spool) = self.open.values_mut().max_by_key(|spool| spool.tail.len()) else { return Ok(()) };
        let file = match &mut spool.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.folder)?),
        };
        file.write_all(&spool.tail)?;
        spool.in_file += spool.tail.len() as u64;
        self.in_memory -= spool.tail.len();
        // The next megabytes of the same transaction come at once.
        spool.tail.clear();
        Ok(())
    }

    /// The transaction `xid`, or of it only the sub-transaction `made_by`, was rolled back.
    pub fn roll_back(&mut self, xid: u32, made_by: u32) {
        if xid == made_by {
            // One of which nothing was sent is none of ours.
            let _forgotten = self.take(xid);
        } else if let Some(spool) = self.open.get_mut(&xid) {
            spool.rolled_back.insert(made_by);
        }
    }

    /// Everything of the transaction `xid`, which was committed.
    pub fn take(&mut self, xid: u32) -> Option<Spool> {
        let spool = self.open.remove(&xid)?;
        self.in_memory -= spool.tail.len();
        self.bytes -= spool.in_file + spool.tail.len() as u64;
        Some(spool)
    }
}

impl Spool {
    /// Its messages in order, without what was rolled back.
    pub fn entries(mut self) -> io::Result<Entries> {
        let file: Box<dyn Read + Send + Sync> = match self.file.take() {
            Some(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                Box::new(BufReader::with_capacity(READ_BYTES, file))
            }
            None => Box::new(io::empty()),
        };
        let left = self.in_file + self.tail.len() as u64;
        Ok(Entries { from: file.chain(Cursor::new(self.tail)), left, rolled_back: self.rolled_back })
    }
}

/// The messages of a transaction.
pub(super) struct Entries {
    from: io::Chain<Box<dyn Read + Send + Sync>, Cursor<Vec<u8>>>,
    left: u64,
    rolled_back: HashSet<u32>,
}

impl Entries {
    /// The next message, into `message`; its place in the log, `None` at the end.
    pub fn next(&mut self, message: &mut Vec<u8>) -> io::Result<Option<Lsn>> {
        while self.left > 0 {
            let mut lsn = [0; 8];
            let (mut made_by, mut len) = ([0; 4], [0; 4]);
            self.from.read_exact(&mut lsn)?;
            self.from.read_exact(&mut made_by)?;
            self.from.read_exact(&mut len)?;
            message.resize(u32::from_be_bytes(len) as usize, 0);
            self.from.read_exact(message)?;
            self.left = self.left.saturating_sub((HEAD_BYTES + message.len()) as u64);
            if !self.rolled_back.contains(&u32::from_be_bytes(made_by)) {
                return Ok(Some(Lsn(u64::from_be_bytes(lsn))));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn message(made_by: u32, text: &str) -> Vec<u8> {
        let mut message = vec![b'I'];
        message.extend(made_by.to_be_bytes());
        message.extend(text.as_bytes());
        message
    }

    fn texts(spool: Spool) -> Vec<(u64, String)> {
        let (mut entries, mut message, mut found) = (spool.entries().unwrap(), Vec::new(), Vec::new());
        while let Some(lsn) = entries.next(&mut message).unwrap() {
            found.push((lsn.0, String::from_utf8(message.clone()).unwrap()));
        }
        found
    }

    fn spools(memory_bytes: usize) -> (tempfile::TempDir, Spools) {
        let folder = tempfile::tempdir().unwrap();
        let spools = Spools::new(folder.path().to_owned(), 4000);
        (folder, Spools { memory_bytes, ..spools })
    }

    #[test]
    fn what_a_sub_transaction_did_is_left_out_and_nothing_else_in_memory_and_on_disk() {
        for memory in [4000, 0, 60] {
            let (folder, mut spools) = spools(memory);
            for (xid, first) in [(7, true), (9, true)] {
                spools.begin(xid, first).unwrap();
                for (lsn, made_by, text) in [(1, xid, "a"), (2, xid + 1, "b"), (2, xid + 1, "c"), (3, xid, "d")] {
                    spools.push(xid, Lsn(lsn), &message(made_by, text)).unwrap();
                }
            }
            spools.begin(7, false).unwrap();
            spools.push(7, Lsn(5), &message(7, "e")).unwrap();
            spools.roll_back(7, 8);
            assert_eq!(texts(spools.take(7).unwrap()), [(1, "Ia".into()), (3, "Id".into()), (5, "Ie".into())]);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "its files have no name");
            spools.roll_back(9, 9);
            assert!(spools.take(9).is_none());
            assert_eq!((spools.len(), spools.bytes(), spools.in_memory), (0, 0, 0));
        }
    }

    #[test]
    fn what_does_not_fit_and_what_cannot_be_is_said() {
        let (_folder, mut spools) = spools(200);
        spools.begin(7, true).unwrap();
        assert!(matches!(spools.begin(7, true), Err(Trouble::Protocol(_))));
        assert!(matches!(spools.begin(8, false), Err(Trouble::Protocol(_))));
        spools.push(7, Lsn(5), &message(7, "a")).unwrap();
        spools.push(7, Lsn(0), &message(7, "a relation")).unwrap();
        assert!(matches!(spools.push(7, Lsn(4), &message(7, "b")), Err(Trouble::Protocol(_))));
        assert!(matches!(spools.push(7, Lsn(6), &message(7, &"c".repeat(4000))), Err(Trouble::Full(4000))));
        assert!(matches!(spools.push(7, Lsn(6), b"I"), Err(Trouble::Protocol(_))));
    }
}
