//! Reading lines out of one file: plain, gzip or zstd, from any place in the uncompressed stream.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use xxhash_rust::xxh3::xxh3_64;

/// The bytes before a position whose hash is part of the position.
pub(super) const TAIL_BYTES: usize = 1024;
/// The most bytes of the first line that make a file's fingerprint.
const HEAD_BYTES: u64 = 64 * 1024;
/// The longest line that is taken.
pub(super) const MAX_LINE_BYTES: usize = 64 << 20;
const BUFFER_BYTES: usize = 256 * 1024;

/// How a file is packed, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    pub(super) fn of(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

type Stream = Box<dyn BufRead + Send>;

/// Reads an open file from a place of its own, so that several readers can share one descriptor.
struct From {
    file: Arc<File>,
    offset: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

fn from(file: &Arc<File>, offset: u64) -> BufReader<From> {
    BufReader::with_capacity(BUFFER_BYTES, From { file: file.clone(), offset })
}

/// The uncompressed stream of `file` from its start.
fn unpacked(file: &Arc<File>, packing: Packing) -> io::Result<Stream> {
    let file = from(file, 0);
    Ok(match packing {
        Packing::Plain => Box::new(file),
        Packing::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file))),
        Packing::Zstd => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, zstd::stream::read::Decoder::with_buffer(file)?))
        }
    })
}

/// Whether an error means that a packed stream is not finished (yet).
pub(super) fn is_unfinished(error: &io::Error) -> bool {
    // zstd reports an incomplete frame in the same way as flate2.
    error.kind() == io::ErrorKind::UnexpectedEof
}

/// The hash of the first line that is not blank (its first 64 KiB): what recognises a file under another name.
/// `None` while that line is not complete, unless `ended` says that the file will not grow.
pub(super) fn fingerprint(file: &Arc<File>, packing: Packing, ended: bool) -> io::Result<Option<u64>> {
    let mut head = Vec::new();
    match unpacked(file, packing)?.take(HEAD_BYTES).read_to_end(&mut head) {
        Ok(_) => {}
        Err(error) if is_unfinished(&error) => {}
        Err(error) => return Err(error),
    }
    let text = head.trim_ascii_start();
    let complete = memchr::memchr(b'\n', text);
    if text.is_empty() || (complete.is_none() && !ended && (head.len() as u64) < HEAD_BYTES) {
        return Ok(None);
    }
    let line = text[..complete.unwrap_or(text.len())].trim_ascii_end();
    Ok(Some(xxh3_64(line)))
}

/// A place in the uncompressed stream, and the hash of the bytes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) tail: u64,
}

impl Place {
    pub(super) const START: Self = Self { offset: 0, tail: 0 };

    /// The form that stands in the log: `offset:hash`.
    pub(super) fn to_text(self) -> String {
        if self.offset == 0 { "0".into() } else { format!("{}:{:016x}", self.offset, self.tail) }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self::START);
        }
        let (offset, tail) = text.split_once(':')?;
        Some(Self { offset: offset.parse().ok()?, tail: u64::from_str_radix(tail, 16).ok()? })
    }
}

/// What [`Lines::open`] found at a place.
pub(super) enum Opened {
    /// The bytes before the place are the ones that were read.
    At(Lines),
    /// The stream ends before the place.
    Shorter,
    /// Other bytes stand before the place.
    Changed,
}

/// Lines from a place on.
pub(super) struct Lines {
    stream: Stream,
    offset: u64,
    tail: Vec<u8>,
    line: Vec<u8>,
}

/// What the next line is.
pub(super) enum Line<'a> {
    /// A line at `offset`, without its end; may be blank.
    Whole { offset: u64, bytes: &'a [u8] },
    /// The stream ends here; `rest` bytes stand after the last line end.
    End { rest: usize },
    /// The line at `offset` is longer than [`MAX_LINE_BYTES`].
    TooLong { offset: u64 },
}

impl Lines {
    /// Opens `file` at `place`, comparing what stands before it.
    pub(super) fn open(file: &Arc<File>, packing: Packing, place: Place) -> io::Result<Opened> {
        let mut tail = vec![0; (place.offset as usize).min(TAIL_BYTES)];
        let before = place.offset - tail.len() as u64;
        let mut stream = match packing {
            Packing::Plain => Box::new(from(file, before)),
            _ => {
                let mut stream = unpacked(file, packing)?;
                match io::copy(&mut stream.by_ref().take(before), &mut io::sink()) {
                    Ok(skipped) if skipped == before => stream,
                    Ok(_) => return Ok(Opened::Shorter),
                    Err(error) if is_unfinished(&error) => return Ok(Opened::Shorter),
                    Err(error) => return Err(error),
                }
            }
        };
        match stream.read_exact(&mut tail) {
            Ok(()) => {}
            Err(error) if is_unfinished(&error) => return Ok(Opened::Shorter),
            Err(error) => return Err(error),
        }
        if place.offset > 0 && xxh3_64(&tail) != place.tail {
            return Ok(Opened::Changed);
        }
        Ok(Opened::At(Self { stream, offset: place.offset, tail, line: Vec::new() }))
    }

    /// Where the next line begins.
    pub(super) fn place(&self) -> Place {
        let tail = &self.tail[self.tail.len().saturating_sub(TAIL_BYTES)..];
        if self.offset == 0 { Place::START } else { Place { offset: self.offset, tail: xxh3_64(tail) } }
    }

    /// The next line. After an end or an error the reader must be opened again.
    pub(super) fn next(&mut self) -> io::Result<Line<'_>> {
        self.line.clear();
        loop {
            let buffer = self.stream.fill_buf()?;
            if buffer.is_empty() {
                return Ok(Line::End { rest: self.line.len() });
            }
            if let Some(end) = memchr::memchr(b'\n', buffer) {
                self.line.extend_from_slice(&buffer[..=end]);
                self.stream.consume(end + 1);
                break;
            }
            let all = buffer.len();
            self.line.extend_from_slice(buffer);
            self.stream.consume(all);
            if self.line.len() > MAX_LINE_BYTES {
                return Ok(Line::TooLong { offset: self.offset });
            }
        }
        Ok(self.take_line())
    }

    /// Takes what stands after the last line end as a line. Only after [`Line::End`].
    pub(super) fn rest(&mut self) -> Line<'_> {
        self.take_line()
    }

    fn take_line(&mut self) -> Line<'_> {
        let offset = self.offset;
        self.offset += self.line.len() as u64;
        self.remember();
        let mut bytes = self.line.as_slice();
        // Some editors put a byte order mark in front of the file.
        if offset == 0 {
            bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        }
        Line::Whole { offset, bytes: bytes.trim_ascii_end() }
    }

    fn remember(&mut self) {
        if self.line.len() >= TAIL_BYTES {
            self.tail.clear();
            self.tail.extend_from_slice(&self.line[self.line.len() - TAIL_BYTES..]);
            return;
        }
        self.tail.extend_from_slice(&self.line);
        // Moving the bytes to the front only now and then keeps short lines cheap.
        if self.tail.len() > 16 * TAIL_BYTES {
            let surplus = self.tail.len() - TAIL_BYTES;
            self.tail.drain(..surplus);
        }
    }
}
