//! The events of a binary log file.

use super::bytes::Bytes;
use super::event::{Checksum, Event, EventReader, HEADER};
use super::{Malformed, event::Header};

const MAGIC: &[u8; 4] = b"\xfebin";
const ENCRYPTED: &[u8; 4] = b"\xfdbin";

/// The events of a file that is in memory.
#[derive(Debug)]
pub struct BinlogFile<'a> {
    bytes: &'a [u8],
    at: usize,
    reader: EventReader,
}

impl<'a> BinlogFile<'a> {
    /// A file, from its first byte.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.starts_with(ENCRYPTED) {
            return Err(Malformed::Encrypted);
        }
        if !bytes.starts_with(MAGIC) {
            return Err(Malformed::Other("it is not a binary log: its first bytes are not `fe bin`"));
        }
        Ok(Self { bytes, at: MAGIC.len(), reader: EventReader::new(Checksum::None) })
    }

    /// What reads the events: it knows the format description.
    pub fn reader(&self) -> &EventReader {
        &self.reader
    }

    /// The next event and where it begins; `None` at the end. After an error there is no way on.
    pub fn next_event(&mut self) -> Option<(u64, Result<Event<'a>, Malformed>)> {
        let at = self.at;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let event = Header::parse(&mut Bytes(rest))
            .and_then(|header| rest.get(..(header.size as usize).max(HEADER)).ok_or(Malformed::Short))
            .and_then(|bytes| {
                self.at += bytes.len();
                self.reader.read(bytes)
            });
        if event.is_err() {
            self.at = self.bytes.len();
        }
        Some((at as u64, event))
    }
}
