//! What `COPY … TO STDOUT (FORMAT binary)` sends.
//!
//! ```text
//! PGCOPY\n\xff\r\n\0  flags  length of the header's extension  rows…  -1
//! row: number of values, then per value its length (-1 is null) and its bytes
//! ```
//!
//! A server sends a row per message, but nothing says that it must: pieces may end anywhere.

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Why bytes are not a binary copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCopy {
    #[error("it does not begin like a binary copy")]
    Signature,
    #[error("it has a length that is none")]
    Length,
    #[error("it goes on behind its end")]
    BeyondEnd,
    #[error("it ends in the middle of a row")]
    Unfinished,
}

/// Takes a binary copy apart.
#[derive(Debug, Default)]
pub struct CopyRows {
    /// What has come and is not yet taken.
    bytes: Vec<u8>,
    /// Where the next row begins.
    at: usize,
    begun: bool,
    ended: bool,
}

/// The values of one row; `None` is null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRow<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> CopyRow<'a> {
    /// The number of values.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let mut rest = self.bytes;
        (0..self.count).map_while(move |_| {
            let (value, behind) = value(rest).ok()??;
            rest = behind;
            Some(value)
        })
    }
}

fn number<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest))
}

type Split<'a> = (Option<&'a [u8]>, &'a [u8]);

/// The first value and what comes behind it; `None` while it is not all there.
fn value(bytes: &[u8]) -> Result<Option<Split<'_>>, BadCopy> {
    let Some((len, rest)) = number::<4>(bytes) else { return Ok(None) };
    match i32::from_be_bytes(len) {
        -1 => Ok(Some((None, rest))),
        len => {
            let len = usize::try_from(len).map_err(|_| BadCopy::Length)?;
            Ok(rest.split_at_checked(len).map(|(value, rest)| (Some(value), rest)))
        }
    }
}

impl CopyRows {
    /// Takes the next piece.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), BadCopy> {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(piece);
        if self.ended && !piece.is_empty() {
            return Err(BadCopy::BeyondEnd);
        }
        if !self.begun {
            self.begin()?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), BadCopy> {
        let known = SIGNATURE.len().min(self.bytes.len());
        if self.bytes[..known] != SIGNATURE[..known] {
            return Err(BadCopy::Signature);
        }
        let Some(rest) = self.bytes.get(SIGNATURE.len() + 4..) else { return Ok(()) };
        let Some((extension, rest)) = number::<4>(rest) else { return Ok(()) };
        let extension = usize::try_from(i32::from_be_bytes(extension)).map_err(|_| BadCopy::Length)?;
        if rest.len() >= extension {
            self.at = self.bytes.len() - rest.len() + extension;
            self.begun = true;
        }
        Ok(())
    }

    /// The next row that is there as a whole.
    pub fn next_row(&mut self) -> Result<Option<CopyRow<'_>>, BadCopy> {
        if !self.begun || self.ended {
            return Ok(None);
        }
        let Some((count, rest)) = number::<2>(&self.bytes[self.at..]) else { return Ok(None) };
        let count = i16::from_be_bytes(count);
        if count == -1 {
            self.ended = true;
            return if rest.is_empty() { Ok(None) } else { Err(BadCopy::BeyondEnd) };
        }
        let count = usize::try_from(count).map_err(|_| BadCopy::Length)?;
        let mut behind = rest;
        for _ in 0..count {
            match value(behind)? {
                Some((_, next)) => behind = next,
                None => return Ok(None),
            }
        }
        let (from, to) = (self.bytes.len() - rest.len(), self.bytes.len() - behind.len());
        self.at = to;
        Ok(Some(CopyRow { count, bytes: &self.bytes[from..to] }))
    }

    /// Says whether the copy came to its end.
    pub fn finish(&self) -> Result<(), BadCopy> {
        if self.ended { Ok(()) } else { Err(BadCopy::Unfinished) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Row = Vec<Option<Vec<u8>>>;

    fn written(rows: &[Row]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend([0; 8]);
        for row in rows {
            out.extend((row.len() as i16).to_be_bytes());
            for value in row {
                out.extend(value.as_ref().map_or(-1, |value| value.len() as i32).to_be_bytes());
                out.extend(value.iter().flatten());
            }
        }
        out.extend((-1i16).to_be_bytes());
        out
    }

    fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Row>, BadCopy> {
        let (mut rows, mut copy) = (Vec::new(), CopyRows::default());
        for piece in pieces {
            copy.feed(piece)?;
            while let Some(row) = copy.next_row()? {
                rows.push(row.iter().map(|value| value.map(<[u8]>::to_vec)).collect());
            }
        }
        copy.finish().map(|()| rows)
    }

    proptest! {
        #[test]
        fn rows_are_read_however_they_are_cut(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 0..5), 0..6),
            cut in 1usize..40,
        ) {
            let bytes = written(&rows);
            prop_assert_eq!(read(bytes.chunks(cut)), Ok(rows));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, cut in 1usize..9) {
            let _any = read(bytes.chunks(cut));
            let mut begun = written(&[]);
            begun.truncate(SIGNATURE.len() + 8);
            begun.extend(bytes);
            let _any = read(begun.chunks(cut));
        }
    }

    #[test]
    fn half_a_copy_is_not_a_whole_one() {
        let bytes = written(&[vec![Some(b"a".to_vec())]]);
        assert_eq!(read([&bytes[..bytes.len() - 2]].into_iter()), Err(BadCopy::Unfinished));
        assert_eq!(read([&bytes[..], b"x"].into_iter()), Err(BadCopy::BeyondEnd));
        assert_eq!(read([&b"1\t2\n"[..]].into_iter()), Err(BadCopy::Signature));
    }
}
