//! The character sets of MySQL and MariaDB whose text can be read exactly, and which collation stands for which.

mod tables;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A character set that is read exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Charset {
    /// utf8mb3 and utf8mb4
    Utf8,
    Ascii,
    /// Windows' code page 1252, the five bytes that it leaves open standing for themselves.
    Latin1,
    /// Big-endian, without surrogates.
    Ucs2,
    Utf16,
    Utf16le,
    Utf32,
    Armscii8,
    Cp1250,
    Cp1251,
    Cp1256,
    Cp1257,
    Cp850,
    Cp852,
    Cp866,
    Dec8,
    Geostd8,
    Greek,
    Hebrew,
    Hp8,
    Keybcs2,
    Koi8r,
    Koi8u,
    Latin2,
    Latin5,
    Latin7,
    Macce,
    Macroman,
    Tis620,
    Cp932,
    Eucjpms,
    Euckr,
    Gbk,
}

/// What `latin1` has from 0x80 to 0x9F.
const CP1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

impl Charset {
    /// The character set of that name in `information_schema`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "utf8" | "utf8mb3" | "utf8mb4" => Self::Utf8,
            "ascii" => Self::Ascii,
            "latin1" => Self::Latin1,
            "ucs2" => Self::Ucs2,
            "utf16" => Self::Utf16,
            "utf16le" => Self::Utf16le,
            "utf32" => Self::Utf32,
            "armscii8" => Self::Armscii8,
            "cp1250" => Self::Cp1250,
            "cp1251" => Self::Cp1251,
            "cp1256" => Self::Cp1256,
            "cp1257" => Self::Cp1257,
            "cp850" => Self::Cp850,
            "cp852" => Self::Cp852,
            "cp866" => Self::Cp866,
            "dec8" => Self::Dec8,
            "geostd8" => Self::Geostd8,
            "greek" => Self::Greek,
            "hebrew" => Self::Hebrew,
            "hp8" => Self::Hp8,
            "keybcs2" => Self::Keybcs2,
            "koi8r" => Self::Koi8r,
            "koi8u" => Self::Koi8u,
            "latin2" => Self::Latin2,
            "latin5" => Self::Latin5,
            "latin7" => Self::Latin7,
            "macce" => Self::Macce,
            "macroman" => Self::Macroman,
            "tis620" => Self::Tis620,
            "cp932" => Self::Cp932,
            "eucjpms" => Self::Eucjpms,
            "euckr" => Self::Euckr,
            "gbk" => Self::Gbk,
            _ => return None,
        })
    }

    /// The most bytes that one character takes.
    pub fn widest(name: &str) -> Option<u16> {
        Some(match name.to_ascii_lowercase().as_str() {
            "utf8" | "utf8mb3" | "ujis" | "eucjpms" => 3,
            "utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030" => 4,
            "ucs2" | "gbk" | "gb2312" | "big5" | "sjis" | "cp932" | "euckr" => 2,
            "binary" => 1,
            name if SINGLE_BYTE.contains(&name) => 1,
            _ => return None,
        })
    }

    /// The text of `bytes`; `None` when they are none in this character set.
    #[inline]
    pub fn decode<'a>(self, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
        match self {
            Self::Utf8 => simdutf8::basic::from_utf8(bytes).ok().map(Cow::Borrowed),
            Self::Ascii | Self::Latin1 if bytes.is_ascii() => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Self::Ascii => None,
            Self::Latin1 => Some(Cow::Owned(bytes.iter().map(|byte| latin1(*byte)).collect())),
            Self::Ucs2 | Self::Utf16 => utf16(bytes, u16::from_be_bytes),
            Self::Utf16le => utf16(bytes, u16::from_le_bytes),
            Self::Utf32 => {
                let (units, rest) = bytes.as_chunks::<4>();
                let text = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit))).collect::<Option<_>>()?;
                rest.is_empty().then_some(Cow::Owned(text))
            }
            _ if bytes.is_ascii() => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Self::Cp932 => multi_byte(encoding_rs::SHIFT_JIS, bytes),
            Self::Eucjpms => multi_byte(encoding_rs::EUC_JP, bytes),
            Self::Euckr => multi_byte(encoding_rs::EUC_KR, bytes),
            Self::Gbk => multi_byte(encoding_rs::GBK, bytes),
            _ => single_byte(self.table()?, bytes),
        }
    }

    /// The characters of a single-byte set from 0x80 on.
    fn table(self) -> Option<&'static [char; 128]> {
        Some(match self {
            Self::Armscii8 => &tables::ARMSCII8,
            Self::Cp1250 => &tables::CP1250,
            Self::Cp1251 => &tables::CP1251,
            Self::Cp1256 => &tables::CP1256,
            Self::Cp1257 => &tables::CP1257,
            Self::Cp850 => &tables::CP850,
            Self::Cp852 => &tables::CP852,
            Self::Cp866 => &tables::CP866,
            Self::Dec8 => &tables::DEC8,
            Self::Geostd8 => &tables::GEOSTD8,
            Self::Greek => &tables::GREEK,
            Self::Hebrew => &tables::HEBREW,
            Self::Hp8 => &tables::HP8,
            Self::Keybcs2 => &tables::KEYBCS2,
            Self::Koi8r => &tables::KOI8R,
            Self::Koi8u => &tables::KOI8U,
            Self::Latin2 => &tables::LATIN2,
            Self::Latin5 => &tables::LATIN5,
            Self::Latin7 => &tables::LATIN7,
            Self::Macce => &tables::MACCE,
            Self::Macroman => &tables::MACROMAN,
            Self::Tis620 => &tables::TIS620,
            _ => return None,
        })
    }
}

fn single_byte(table: &[char; 128], bytes: &[u8]) -> Option<Cow<'static, str>> {
    let character = |byte: &u8| match byte.checked_sub(0x80) {
        None => Some(char::from(*byte)),
        Some(at) => Some(table[usize::from(at)]).filter(|character| *character != '\u{fffd}'),
    };
    bytes.iter().map(character).collect::<Option<String>>().map(Cow::Owned)
}

/// These agree with the servers in every character that the servers have. Those of which that does not hold (big5,
/// gb2312, sjis, ujis) are not read.
fn multi_byte<'a>(encoding: &'static encoding_rs::Encoding, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
    encoding.decode_without_bom_handling_and_without_replacement(bytes)
}

fn latin1(byte: u8) -> char {
    match byte {
        0x80..=0x9F => CP1252[usize::from(byte - 0x80)],
        byte => char::from(byte),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<Cow<'_, str>> {
    let (units, rest) = bytes.as_chunks::<2>();
    let text = char::decode_utf16(units.iter().map(|pair| unit(*pair))).collect::<Result<String, _>>().ok()?;
    rest.is_empty().then_some(Cow::Owned(text))
}

const SINGLE_BYTE: [&str; 28] = [
    "armscii8", "ascii", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866", "dec8", "geostd8", "greek",
    "hebrew", "hp8", "keybcs2", "koi8r", "koi8u", "latin1", "latin2", "latin5", "latin7", "macce", "macroman", "swe7",
    "tis620", "cp1252", "iso88591", "cp1255",
];

/// The character set that a collation orders, by the collation's number in either family.
pub fn of_collation(id: u64) -> Option<&'static str> {
    Some(match id {
        1 | 84 => "big5",
        2 | 9 | 21 | 27 | 77 => "latin2",
        3 | 69 => "dec8",
        4 | 80 => "cp850",
        5 | 8 | 15 | 31 | 47..=49 | 94 => "latin1",
        6 | 72 => "hp8",
        7 | 74 => "koi8r",
        10 | 82 => "swe7",
        11 | 65 => "ascii",
        12 | 91 => "ujis",
        13 | 88 => "sjis",
        14 | 23 | 50..=52 => "cp1251",
        16 | 71 => "hebrew",
        18 | 89 => "tis620",
        19 | 85 => "euckr",
        20 | 41 | 42 | 79 => "latin7",
        22 | 75 => "koi8u",
        24 | 86 => "gb2312",
        25 | 70 => "greek",
        26 | 34 | 44 | 66 | 99 => "cp1250",
        28 | 87 => "gbk",
        29 | 58 | 59 => "cp1257",
        30 | 78 => "latin5",
        32 | 64 => "armscii8",
        36 | 68 => "cp866",
        37 | 73 => "keybcs2",
        38 | 43 => "macce",
        39 | 53 => "macroman",
        40 | 81 => "cp852",
        57 | 67 => "cp1256",
        92 | 93 => "geostd8",
        95 | 96 => "cp932",
        97 | 98 => "eucjpms",
        63 => "binary",
        248..=250 => "gb18030",
        33 | 76 | 83 | 192..=223 | 576..=607 => "utf8mb3",
        45 | 46 | 224..=247 | 255..=399 | 608..=639 => "utf8mb4",
        35 | 90 | 128..=159 | 640..=671 => "ucs2",
        54 | 55 | 101..=127 | 672..=703 => "utf16",
        56 | 62 => "utf16le",
        60 | 61 | 160..=191 | 736..=767 => "utf32",
        // MariaDB's: without padding, and those of Unicode 14.
        1024..=2047 => return of_collation(id - 1024),
        2048..=2303 => "utf8mb3",
        2304..=2559 => "utf8mb4",
        2560..=2815 => "ucs2",
        2816..=3071 => "utf16",
        3072..=3327 => "utf32",
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_in_its_character_set() {
        let cases: [(Charset, &[u8], &str); 16] = [
            (Charset::Cp1250, b"za\xbf\xf3\xb3\xe6", "zażółć"),
            (Charset::Cp1251, b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"),
            (Charset::Koi8r, b"\xf0\xd2\xc9\xd7\xc5\xd4", "Привет"),
            (Charset::Greek, b"\xe1\xe2\xe3", "αβγ"),
            (Charset::Cp932, b"\x93\xfa\x96\x7b \x81\x60", "日本 ～"),
            (Charset::Gbk, b"\xd6\xd0\xb9\xfa", "中国"),
            (Charset::Euckr, b"\xc7\xd1", "한"),
            (Charset::Latin5, b"\xde", "Ş"),
            (Charset::Utf8, "zażółć 🦀".as_bytes(), "zażółć 🦀"),
            (Charset::Ascii, b"plain", "plain"),
            (Charset::Latin1, b"caf\xe9 \x80 \x81", "café € \u{81}"),
            (Charset::Ucs2, b"\x20\xac\x00x", "€x"),
            (Charset::Utf16, b"\xd8\x3e\xdd\x80", "🦀"),
            (Charset::Utf16le, b"\x3e\xd8\x80\xdd", "🦀"),
            (Charset::Utf32, b"\x00\x01\xf9\x80", "🦀"),
            (Charset::Utf8, b"", ""),
        ];
        for (charset, bytes, text) in cases {
            assert_eq!(charset.decode(bytes).as_deref(), Some(text), "{charset:?}");
        }
        for (charset, bytes) in [
            (Charset::Utf8, &b"\xff"[..]),
            (Charset::Ascii, b"\x80"),
            (Charset::Cp1250, b"\x81"),
            (Charset::Gbk, b"\x81"),
            (Charset::Ucs2, b"\x20"),
            (Charset::Utf16, b"\xd8\x3e"),
            (Charset::Utf32, b"\x00\x11\x00\x00"),
        ] {
            assert_eq!(charset.decode(bytes), None, "{charset:?}");
        }
    }

    #[test]
    fn collations_name_their_character_set() {
        for (id, name) in
            [(8, "latin1"), (45, "utf8mb4"), (255, "utf8mb4"), (63, "binary"), (1069, "utf8mb4"), (2304, "utf8mb4")]
        {
            assert_eq!(of_collation(id), Some(name), "{id}");
        }
        assert_eq!(of_collation(0), None);
        assert_eq!(of_collation(u64::MAX), None);
    }
}
