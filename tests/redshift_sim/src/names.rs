//! Long names: Redshift takes 127 bytes, <https://docs.aws.amazon.com/redshift/latest/dg/r_names.html>, and PostgreSQL 63.
//! A longer one is cut inside, with a number for what it was, and written out again in catalogs, answers and errors.

use std::borrow::Cow;
use std::collections::HashMap;

/// The longest name; what is longer is cut, without an error.
pub const MOST_BYTES: usize = 127;
/// The longest of PostgreSQL's.
const KEPT_BYTES: usize = 63;

/// The beginning of a text, of at most so many bytes.
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// A name as PostgreSQL takes it.
pub fn short(name: &str) -> Cow<'_, str> {
    if name.len() <= KEPT_BYTES {
        return Cow::Borrowed(name);
    }
    // FNV-1a: two names of one beginning must not meet.
    let number = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    Cow::Owned(format!("{}~{number:016x}", cut(name, KEPT_BYTES - 17)))
}

/// The long names that have been met, by what they are inside.
#[derive(Debug, Default)]
pub struct Names(HashMap<String, String>);

impl Names {
    /// Whether the name is long and has not been met before.
    pub fn is_new(&self, name: &str) -> bool {
        name.len() > KEPT_BYTES && !self.0.contains_key(&*short(name))
    }

    /// Remembers a long name.
    pub fn add(&mut self, name: &str) {
        self.0.insert(short(name).into_owned(), name.to_owned());
    }

    /// The name that stands for this one inside.
    pub fn long<'a>(&'a self, inside: &'a str) -> &'a str {
        self.0.get(inside).map_or(inside, String::as_str)
    }

    /// The text with long names in full.
    pub fn written_out(&self, mut text: String) -> String {
        for (short, long) in self.0.iter().filter(|_| text.contains('~')).collect::<Vec<_>>() {
            text = text.replace(short, long);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_short_inside_and_long_outside() {
        let long = format!("{}é_one", "n".repeat(45));
        assert_eq!(short(&long[..63.min(long.len())]).len(), long.len().min(63));
        let (one, other) = (format!("{}é_one", "n".repeat(70)), format!("{}é_two", "n".repeat(70)));
        assert!(short(&one).len() <= KEPT_BYTES && short(&one) != short(&other));
        let mut names = Names::default();
        assert!(names.is_new(&one) && !names.is_new("short"));
        names.add(&one);
        assert!(!names.is_new(&one));
        assert_eq!(names.long(&short(&one)), one);
        assert_eq!(names.written_out(format!("no column {} here", short(&one))), format!("no column {one} here"));
    }
}
