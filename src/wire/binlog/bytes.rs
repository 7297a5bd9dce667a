//! A place in bytes, all numbers little-endian.

use super::Malformed;

#[derive(Debug, Clone, Copy)]
pub(in crate::wire) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(head)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of `count` bytes, at most eight.
    pub fn number(&mut self, count: usize) -> Result<u64, Malformed> {
        Ok(crate::wire::mysqltype::little_endian(self.take(count)?))
    }

    /// A number whose first byte says how long it is.
    pub fn lenenc(&mut self) -> Result<u64, Malformed> {
        match self.u8()? {
            first @ 0..=250 => Ok(u64::from(first)),
            252 => self.number(2),
            253 => self.number(3),
            254 => self.number(8),
            _ => Err(Malformed::Number),
        }
    }

    /// A length that still has as many bytes behind it.
    pub fn length(&mut self) -> Result<usize, Malformed> {
        let length = self.lenenc()?;
        usize::try_from(length).ok().filter(|length| *length <= self.0.len()).ok_or(Malformed::Short)
    }

    /// Bytes behind their length.
    pub fn counted(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length()?;
        self.take(length)
    }

    /// A number as MySQL's serialisation library writes it: as many bytes as the first ends in ones, and one.
    pub fn varlen(&mut self) -> Result<u64, Malformed> {
        let first = *self.0.first().ok_or(Malformed::Short)?;
        let count = first.trailing_ones() as usize + 1;
        if count == 9 {
            self.u8()?;
            return self.u64();
        }
        Ok(self.number(count)? >> count)
    }

    /// The same, with a sign in the lowest bit.
    pub fn varlen_signed(&mut self) -> Result<i64, Malformed> {
        let number = self.varlen()?;
        let magnitude = (number >> 1) as i64;
        Ok(if number & 1 == 1 { -magnitude - 1 } else { magnitude })
    }

    /// A name: UTF-8.
    pub fn utf8(bytes: &'a [u8]) -> Result<&'a str, Malformed> {
        simdutf8::basic::from_utf8(bytes).map_err(|_| Malformed::Encoding)
    }
}

/// Whether bit `at` is set, the lowest bit of each byte first.
#[inline]
pub(in crate::wire) fn bit(bits: &[u8], at: usize) -> bool {
    bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
}

/// Whether bit `at` is set, the highest bit of each byte first.
pub(in crate::wire) fn bit_high(bits: &[u8], at: usize) -> bool {
    bits.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
}
