//! Messages of the PostgreSQL protocol, version 3, as bytes:
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
//!
//! The emulator passes most of what PostgreSQL answers on as it is, so it frames messages and does not model them.

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::names::Names;
use crate::refusal::Refusal;

/// The types of PostgreSQL that stand for types which only Redshift has: (PostgreSQL's OID, Redshift's).
/// <https://docs.aws.amazon.com/redshift/latest/dg/r_SUPER_type.html>, `…/r_VARBYTE_type.html`.
const TYPES: [(u32, u32); 2] = [(3802, SUPER), (17, VARBYTE)];
const SUPER: u32 = 4000;
const VARBYTE: u32 = 6551;
/// TEXT, CHAR and VARCHAR, of which none is longer: <https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html>.
const TEXTS: [u32; 3] = [25, 1042, 1043];
const TEXT_BYTES: usize = 65_535;

/// What a `RowDescription` says of a column behind its name, in bytes.
const FIELD: usize = 18;

/// One message: its tag and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The first byte.
    pub tag: u8,
    /// What follows its length.
    pub body: Vec<u8>,
}

impl Message {
    /// A message.
    pub fn new(tag: u8, body: impl Into<Vec<u8>>) -> Self {
        Self { tag, body: body.into() }
    }

    /// Reads the next one; none if the stream has ended.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Self>> {
        let tag = match from.read_u8().await {
            Ok(tag) => tag,
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        };
        let length =
            from.read_u32().await?.checked_sub(4).ok_or_else(|| broken("a message shorter than its length"))?;
        let mut body = vec![0; length as usize];
        from.read_exact(&mut body).await?;
        Ok(Some(Self { tag, body }))
    }

    /// Appends it to what is to be sent.
    pub fn put(&self, to: &mut BytesMut) {
        to.put_u8(self.tag);
        to.put_u32(u32::try_from(self.body.len() + 4).unwrap_or(u32::MAX));
        to.put_slice(&self.body);
    }

    /// `ParameterStatus`.
    pub fn parameter(name: &str, value: &str) -> Self {
        Self::new(b'S', [name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat())
    }

    /// `CommandComplete`.
    pub fn complete(tag: &str) -> Self {
        Self::new(b'C', [tag.as_bytes(), b"\0"].concat())
    }

    /// `ReadyForQuery`.
    pub fn ready(status: u8) -> Self {
        Self::new(b'Z', [status])
    }

    /// `Query`.
    pub fn query(sql: &str) -> Self {
        Self::new(b'Q', [sql.as_bytes(), b"\0"].concat())
    }

    /// `ErrorResponse`.
    pub fn error(refusal: &Refusal) -> Self {
        let severity = if refusal.fatal { "FATAL" } else { "ERROR" };
        Self::fields(b'E', severity, refusal)
    }

    /// `NoticeResponse`.
    pub fn info(message: &str) -> Self {
        Self::fields(b'N', "INFO", &Refusal::new("00000", message))
    }

    fn fields(tag: u8, severity: &str, refusal: &Refusal) -> Self {
        let mut body = Vec::new();
        let fields = [
            (b'S', severity),
            (b'C', &refusal.code),
            (b'M', &refusal.message),
            (b'D', &refusal.detail),
            (b'H', &refusal.hint),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            body.push(name);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        Self { tag, body }
    }

    /// The fields of an `ErrorResponse`, by their letters.
    pub fn error_field(&self, wanted: u8) -> String {
        let mut rest = self.body.as_slice();
        while rest.first().is_some_and(|letter| *letter != 0) {
            let letter = rest.get_u8();
            let value = take_text(&mut rest).unwrap_or_default();
            if letter == wanted {
                return value;
            }
        }
        String::new()
    }

    /// The text that the body begins with.
    pub fn text(&self) -> String {
        take_text(&mut self.body.as_slice()).unwrap_or_default()
    }

    /// The values of a `DataRow` in text format.
    pub fn values(&self) -> Vec<Option<String>> {
        let mut rest = self.body.as_slice();
        let count = if rest.len() >= 2 { rest.get_u16() } else { 0 };
        let mut values = Vec::with_capacity(count.into());
        for _ in 0..count {
            if rest.len() < 4 {
                break;
            }
            let length = rest.get_i32();
            values.push(usize::try_from(length).ok().filter(|l| *l <= rest.len()).map(|length| {
                let (value, after) = rest.split_at(length);
                rest = after;
                String::from_utf8_lossy(value).into_owned()
            }));
        }
        values
    }

    /// The types of a `RowDescription`'s columns.
    pub fn column_types(&self) -> Vec<u32> {
        let mut rest = self.body.get(2..).unwrap_or_default();
        let mut types = Vec::new();
        while take_text(&mut rest).is_some() && rest.len() >= FIELD {
            types.push(u32::from_be_bytes([rest[6], rest[7], rest[8], rest[9]]));
            rest = &rest[FIELD..];
        }
        types
    }

    /// A `DataRow` in text format as Redshift prints values of these types: bytes as hexadecimal digits alone
    /// (<https://docs.aws.amazon.com/redshift/latest/dg/r_VARBYTE_type.html>). A text that is longer than one is an error.
    pub fn printed(self, types: &[u32]) -> Result<Self, Refusal> {
        let mut rest = self.body.get(2..).unwrap_or_default();
        let mut body = self.body.get(..2).unwrap_or_default().to_vec();
        for column in types {
            if rest.len() < 4 {
                break;
            }
            let length = rest.get_i32();
            let (mut value, after) = rest.split_at(usize::try_from(length).unwrap_or(0).min(rest.len()));
            rest = after;
            if TEXTS.contains(column) && value.len() > TEXT_BYTES {
                return Err(Refusal::new("22001", "Value too long for character type"));
            }
            if *column == VARBYTE {
                value = value.strip_prefix(b"\\x").unwrap_or(value);
            }
            body.put_i32(if length < 0 { length } else { i32::try_from(value.len()).unwrap_or(length) });
            body.extend_from_slice(value);
        }
        Ok(Self { body, ..self })
    }

    /// A `RowDescription` with Redshift's types in place of those that stand for them.
    #[must_use]
    pub fn with_redshift_types(mut self) -> Self {
        let mut at = 2;
        while let Some(end) = self.body.get(at..).and_then(|rest| rest.iter().position(|b| *b == 0)) {
            let oid = at + end + 1 + 6;
            let Some(bytes) = self.body.get_mut(oid..oid + 4) else { break };
            let found = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            if let Some((_, redshift)) = TYPES.iter().find(|(postgres, _)| *postgres == found) {
                bytes.copy_from_slice(&redshift.to_be_bytes());
            }
            at = oid + 12;
        }
        self
    }
}

impl Message {
    /// A `RowDescription` with the columns' names in full.
    #[must_use]
    pub fn with_names(self, names: &Names) -> Self {
        let mut body = self.body.get(..2).unwrap_or_default().to_vec();
        let mut rest = self.body.get(2..).unwrap_or_default();
        while let Some(name) = take_text(&mut rest).filter(|_| rest.len() >= FIELD) {
            body.extend_from_slice(names.long(&name).as_bytes());
            body.push(0);
            body.extend_from_slice(&rest[..FIELD]);
            rest = &rest[FIELD..];
        }
        Self { body, ..self }
    }
}

/// Takes a text that a zero byte ends.
pub fn take_text(from: &mut &[u8]) -> Option<String> {
    let end = from.iter().position(|b| *b == 0)?;
    let (text, rest) = from.split_at(end);
    *from = &rest[1..];
    Some(String::from_utf8_lossy(text).into_owned())
}

/// What a peer must not send.
pub fn broken(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn types_that_only_redshift_has_get_its_own_numbers() {
        let column = |name: &str, oid: u32| {
            let mut bytes = [name.as_bytes(), b"\0"].concat();
            bytes.put_u32(0);
            bytes.put_u16(0);
            bytes.put_u32(oid);
            bytes.put_u16(0);
            bytes.put_u32(0);
            bytes.put_u16(0);
            bytes
        };
        let row = |oids: [u32; 3]| {
            let columns = ["a", "bb", "c"].iter().zip(oids).flat_map(|(name, oid)| column(name, oid));
            Message::new(b'T', [0, 3].into_iter().chain(columns).collect::<Vec<u8>>())
        };
        assert_eq!(row([23, 3802, 17]).with_redshift_types(), row([23, 4000, 6551]));
    }

    #[test]
    fn an_error_carries_its_fields() {
        let message = Message::error(&Refusal::new("XX000", "1023").detail("why"));
        assert_eq!((message.error_field(b'C'), message.error_field(b'D')), ("XX000".into(), "why".into()));
        assert_eq!(message.error_field(b'H'), "");
    }
}
