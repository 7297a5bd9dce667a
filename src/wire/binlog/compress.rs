//! What is compressed: whole transactions (MySQL, zstd), and single events (MariaDB, zlib).

use std::io::{BufReader, Read};

use super::Malformed;
use super::bytes::Bytes;
use super::event::{HEADER, Header};

/// The most that one event takes, decompressed: what a server allows a packet to be.
const EVENT_BYTES: u64 = 1 << 30;
/// The largest window of a zstd frame that is read, as a power of two: what the strongest level uses.
const WINDOW_LOG: u32 = 27;

/// A transaction in compressed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    zstd: bool,
    /// How long its events are, decompressed.
    pub length: u64,
    bytes: &'a [u8],
}

impl<'a> Payload<'a> {
    pub(super) fn parse(mut body: Bytes<'a>) -> Result<Self, Malformed> {
        let (mut zstd, mut length, mut size) = (true, 0, None);
        loop {
            match body.lenenc()? {
                0 => break,
                field => {
                    let mut value = Bytes(body.counted()?);
                    match field {
                        1 => size = Some(value.lenenc()?),
                        2 => {
                            zstd = match value.lenenc()? {
                                0 => true,
                                255 => false,
                                _ => return Err(Malformed::Other("its transaction is compressed in an unknown way")),
                            }
                        }
                        3 => length = value.lenenc()?,
                        _ => {}
                    }
                }
            }
        }
        let size = size.unwrap_or(body.0.len() as u64);
        if size != body.0.len() as u64 {
            return Err(Malformed::Other("its compressed transaction is of another length than it says"));
        }
        Ok(Self { zstd, length, bytes: body.0 })
    }

    /// The events, one by one: [`EventReader::read_inner`](super::EventReader::read_inner) reads them.
    pub fn events(&self) -> Result<PayloadEvents<'a>, Malformed> {
        let source: Box<dyn Read + Send + 'a> = if self.zstd {
            let mut decoder = zstd::Decoder::new(self.bytes).map_err(|error| compressed(&error))?;
            decoder.window_log_max(WINDOW_LOG).map_err(|error| compressed(&error))?;
            Box::new(BufReader::new(decoder))
        } else {
            Box::new(self.bytes)
        };
        Ok(PayloadEvents { source, event: Vec::new() })
    }
}

/// The events of a compressed transaction. Holds one at a time, however large the transaction is.
pub struct PayloadEvents<'a> {
    source: Box<dyn Read + Send + 'a>,
    event: Vec<u8>,
}

impl PayloadEvents<'_> {
    /// The bytes of the next event; `None` after the last.
    pub fn next_event(&mut self) -> Result<Option<&[u8]>, Malformed> {
        self.event.clear();
        self.fill(HEADER as u64)?;
        if self.event.is_empty() {
            return Ok(None);
        }
        let header = Header::parse(&mut Bytes(&self.event))?;
        let body = u64::from(header.size).checked_sub(HEADER as u64).ok_or(Malformed::Short)?;
        if body > EVENT_BYTES {
            return Err(Malformed::Other("an event of its transaction is larger than 1 GiB"));
        }
        self.fill(body)?;
        if self.event.len() as u64 != u64::from(header.size) {
            return Err(Malformed::Short);
        }
        Ok(Some(&self.event))
    }

    /// Reads so many bytes more, or what there is; memory grows with what comes and not with what was promised.
    fn fill(&mut self, count: u64) -> Result<(), Malformed> {
        let source = &mut self.source;
        source.take(count).read_to_end(&mut self.event).map_err(|error| compressed(&error))?;
        Ok(())
    }
}

fn compressed(error: &std::io::Error) -> Malformed {
    Malformed::Compressed(error.to_string())
}

/// What MariaDB compressed: a byte that says how, the length in big-endian, and a zlib stream.
pub(super) fn inflate(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut rest = Bytes(bytes);
    let head = rest.u8()?;
    let (marked, algorithm, size) = (head & 0x80 != 0, head >> 4 & 7, usize::from(head & 7));
    if !marked || algorithm != 0 || !(1..=4).contains(&size) {
        return Err(Malformed::Other("its rows are compressed in an unknown way"));
    }
    let length = rest.take(size)?.iter().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
    if length > EVENT_BYTES {
        return Err(Malformed::Other("it is larger than 1 GiB"));
    }
    let mut out = Vec::new();
    let mut decoder = flate2::read::ZlibDecoder::new(rest.0).take(length + 1);
    decoder.read_to_end(&mut out).map_err(|error| compressed(&error))?;
    if out.len() as u64 != length {
        return Err(Malformed::Other("its compressed part is of another length than it says"));
    }
    Ok(out)
}
