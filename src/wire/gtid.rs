//! Global transaction identifiers: sets of MySQL's, and positions of MariaDB's.
//!
//! MySQL's `uuid[:tag]:number` name transactions of a server, and a set of them is what a server has executed: intervals
//! per server and tag. MariaDB's `domain-server-sequence` are a position: of each domain the last one. The state of its log
//! keeps the last one of each server in it.

mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::state::MariaState;

use super::binlog::Malformed;

/// The identifier of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let hyphen = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not the UUID of a server");
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        let mut uuid = [0; 16];
        for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(uuid))
    }
}

/// A tag: a letter or `_`, then letters, digits and `_`, at most 32 in all, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag of that name; `None` when it is empty or not one.
    pub fn new(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        let first = name.bytes().next()?;
        let fits = (first.is_ascii_lowercase() || first == b'_')
            && name.len() <= 32
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        fits.then_some(Self(name))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whose transactions an interval counts; untagged ones come before tagged ones.
type Source = (Uuid, Option<Tag>);

/// A set of MySQL's transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MysqlGtidSet {
    /// Per source, intervals from (inclusive) and to (exclusive), sorted and apart; never empty.
    sources: BTreeMap<Source, Vec<(u64, u64)>>,
}

/// The largest number of a transaction.
const LAST: u64 = i64::MAX as u64 - 1;

impl MysqlGtidSet {
    /// Whether there is no transaction in it.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Whether a source has tags: then the server must be 8.3 or newer.
    pub fn is_tagged(&self) -> bool {
        self.sources.keys().any(|(_, tag)| tag.is_some())
    }

    /// Whether the transaction is in it.
    pub fn has(&self, uuid: Uuid, tag: Option<&Tag>, number: u64) -> bool {
        let Some(intervals) = self.sources.get(&(uuid, tag.cloned())) else { return false };
        let at = intervals.partition_point(|(_, to)| *to <= number);
        intervals.get(at).is_some_and(|(from, _)| *from <= number)
    }

    /// Adds one transaction. Quick for the one that follows the last.
    pub fn add(&mut self, uuid: Uuid, tag: Option<&Tag>, number: u64) {
        self.add_interval((uuid, tag.cloned()), (number, number.saturating_add(1)));
    }

    fn add_interval(&mut self, source: Source, (from, to): (u64, u64)) {
        if from >= to {
            return;
        }
        let intervals = self.sources.entry(source).or_default();
        // Those that overlap or touch become one.
        let first = intervals.partition_point(|(_, end)| *end < from);
        let last = intervals.partition_point(|(start, _)| *start <= to);
        let touched = intervals[first..last].iter();
        let joined = touched.fold((from, to), |(from, to), (start, end)| (from.min(*start), to.max(*end)));
        intervals.splice(first..last, [joined]);
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Self) {
        for (source, intervals) in &other.sources {
            intervals.iter().for_each(|interval| self.add_interval(source.clone(), *interval));
        }
    }

    /// Takes all of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        for (source, cuts) in &other.sources {
            let Some(intervals) = self.sources.get_mut(source) else { continue };
            for (from, to) in cuts {
                let cut = |(start, end): &(u64, u64)| [(*start, (*end).min(*from)), ((*start).max(*to), *end)];
                *intervals = intervals.iter().flat_map(cut).filter(|(start, end)| start < end).collect();
            }
            if intervals.is_empty() {
                self.sources.remove(source);
            }
        }
    }

    /// What is in this set and not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.subtract(other);
        rest
    }

    /// Whether every transaction of `other` is in it.
    pub fn contains(&self, other: &Self) -> bool {
        other.without(self).is_empty()
    }

    /// The number of transactions.
    pub fn count(&self) -> u64 {
        self.sources.values().flatten().map(|(from, to)| to - from).fold(0, u64::saturating_add)
    }

    /// The form in `COM_BINLOG_DUMP_GTID` and in the event of previous GTIDs.
    pub fn encode(&self) -> Vec<u8> {
        let (count, tagged) = (self.sources.len() as u64, self.is_tagged());
        let head = if tagged { 1 << 56 | count << 8 | 1 } else { count };
        let mut out = head.to_le_bytes().to_vec();
        for ((uuid, tag), intervals) in &self.sources {
            out.extend(uuid.0);
            if tagged {
                let tag = tag.as_ref().map(Tag::as_str).unwrap_or_default();
                // A length below 128, as MySQL's serialisation library writes it.
                out.push((tag.len() as u8) << 1);
                out.extend(tag.as_bytes());
            }
            out.extend((intervals.len() as u64).to_le_bytes());
            intervals.iter().for_each(|(from, to)| {
                out.extend(from.to_le_bytes());
                out.extend(to.to_le_bytes());
            });
        }
        out
    }

    /// Reads the form of [`MysqlGtidSet::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = super::binlog::Bytes(bytes);
        let head = bytes.u64()?;
        let (tagged, count) = match head >> 56 {
            0 => (false, head),
            1 => (true, (head << 8) >> 16),
            _ => return Err(Malformed::Other("its GTID set is in a form that is not known here")),
        };
        let mut set = Self::default();
        for _ in 0..count {
            let uuid = Uuid(bytes.array()?);
            let mut tag = None;
            if tagged {
                let length = usize::try_from(bytes.varlen()?).map_err(|_| Malformed::Number)?;
                tag = Tag::new(super::binlog::Bytes::utf8(bytes.take(length)?)?);
            }
            for _ in 0..bytes.u64()? {
                set.add_interval((uuid, tag.clone()), (bytes.u64()?, bytes.u64()?));
            }
        }
        Ok(set)
    }
}

impl fmt::Display for MysqlGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for ((uuid, tag), intervals) in &self.sources {
            if last != Some(uuid) {
                write!(f, "{}{uuid}", if last.is_some() { "," } else { "" })?;
                last = Some(uuid);
            }
            if let Some(tag) = tag {
                write!(f, ":{}", tag.as_str())?;
            }
            for (from, to) in intervals {
                match to - from {
                    1 => write!(f, ":{from}")?,
                    _ => write!(f, ":{from}-{}", to - 1)?,
                }
            }
        }
        Ok(())
    }
}

impl FromStr for MysqlGtidSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let uuid: Uuid = fields.next().unwrap_or_default().parse()?;
            let (mut tag, mut any) = (None, false);
            for field in fields {
                if field.starts_with(|c: char| c.is_ascii_digit()) {
                    set.add_interval((uuid, tag.clone()), interval(field)?);
                    any = true;
                } else {
                    tag = Some(Tag::new(field).ok_or_else(|| format!("`{field}` is no tag of a GTID"))?);
                }
            }
            if !any {
                return Err(format!("`{part}` names no transactions of its server"));
            }
        }
        Ok(set)
    }
}

/// `7` or `1-5`, the end then not in it.
fn interval(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| {
        let number = text.trim().parse::<u64>().ok().filter(|number| (1..=LAST).contains(number));
        number.ok_or_else(|| format!("`{text}` is no number of a transaction"))
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        return Err(format!("`{text}` ends before it begins"));
    }
    Ok((from, to + 1))
}

/// A transaction of MariaDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MariaGtid {
    pub domain: u32,
    pub server: u32,
    pub sequence: u64,
}

impl fmt::Display for MariaGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl FromStr for MariaGtid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.trim().split('-').collect();
        let parsed = match parts.as_slice() {
            [domain, server, sequence] => domain.parse().ok().zip(server.parse().ok()).zip(sequence.parse().ok()),
            _ => None,
        };
        let ((domain, server), sequence) = parsed.ok_or_else(|| format!("`{text}` is not a GTID of MariaDB"))?;
        Ok(Self { domain, server, sequence })
    }
}

/// Of each domain the last transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MariaPosition {
    domains: BTreeMap<u32, MariaGtid>,
}

impl MariaPosition {
    /// Whether it stands at the very beginning.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Goes on to this transaction.
    pub fn add(&mut self, gtid: MariaGtid) {
        self.domains.insert(gtid.domain, gtid);
    }

    /// The last transaction of that domain.
    pub fn of(&self, domain: u32) -> Option<MariaGtid> {
        self.domains.get(&domain).copied()
    }

    /// The last transactions, by domain.
    pub fn iter(&self) -> impl Iterator<Item = MariaGtid> + '_ {
        self.domains.values().copied()
    }

    /// Whether the transaction has been passed: its domain stands at its number or beyond.
    pub fn has(&self, gtid: MariaGtid) -> bool {
        self.of(gtid.domain).is_some_and(|last| last.sequence >= gtid.sequence)
    }

    /// Whether every domain of `other` stands here as far or further.
    pub fn contains(&self, other: &Self) -> bool {
        other.iter().all(|gtid| self.has(gtid))
    }

    /// Takes the further of both in each domain.
    pub fn union(&mut self, other: &Self) {
        other.iter().filter(|gtid| !self.has(*gtid)).collect::<Vec<_>>().into_iter().for_each(|gtid| self.add(gtid));
    }

    /// The domains that stand further here than in `other`.
    pub fn without(&self, other: &Self) -> Self {
        Self { domains: self.iter().filter(|gtid| !other.has(*gtid)).map(|gtid| (gtid.domain, gtid)).collect() }
    }
}

impl fmt::Display for MariaPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, gtid) in self.iter().enumerate() {
            write!(f, "{}{gtid}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for MariaPosition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut position = Self::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let gtid: MariaGtid = part.parse()?;
            if position.of(gtid.domain).is_some_and(|other| other.sequence > gtid.sequence) {
                continue;
            }
            position.add(gtid);
        }
        Ok(position)
    }
}

impl Serialize for MysqlGtidSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MysqlGtidSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for MariaPosition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MariaPosition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "00000000-0000-0000-0000-000000000001";

    type Model = BTreeSet<(u8, Option<u8>, u64)>;

    fn any_model() -> impl Strategy<Value = Model> {
        proptest::collection::btree_set((0u8..2, proptest::option::of(0u8..2), 1u64..12), 0..24)
    }

    fn source(server: u8, tag: Option<u8>) -> (Uuid, Option<Tag>) {
        (Uuid([server; 16]), tag.and_then(|tag| Tag::new(&format!("tag_{tag}"))))
    }

    fn set(model: &Model) -> MysqlGtidSet {
        let mut set = MysqlGtidSet::default();
        for (server, tag, number) in model {
            let (uuid, tag) = source(*server, *tag);
            set.add(uuid, tag.as_ref(), *number);
        }
        set
    }

    proptest! {
        #[test]
        fn sets_do_as_sets_of_transactions_do(a in any_model(), b in any_model()) {
            let (one, other) = (set(&a), set(&b));
            prop_assert_eq!(one.count(), a.len() as u64);
            let mut joined = one.clone();
            joined.union(&other);
            prop_assert_eq!(&joined, &set(&a.union(&b).copied().collect()));
            prop_assert_eq!(one.without(&other), set(&a.difference(&b).copied().collect()));
            prop_assert_eq!(one.contains(&other), b.is_subset(&a));
            for (server, tag, number) in &b {
                let (uuid, tag_name) = source(*server, *tag);
                prop_assert_eq!(one.has(uuid, tag_name.as_ref(), *number), a.contains(&(*server, *tag, *number)));
            }
            prop_assert_eq!(one.to_string().parse::<MysqlGtidSet>(), Ok(one.clone()));
            prop_assert_eq!(MysqlGtidSet::decode(&one.encode()), Ok(one));
        }

        #[test]
        fn any_bytes_and_any_text_are_a_set_or_refused(bytes: Vec<u8>, text in "[-0-9a-f:, _x]{0,60}") {
            let _any = (MysqlGtidSet::decode(&bytes), text.parse::<MysqlGtidSet>(), text.parse::<MariaPosition>());
        }
    }

    #[test]
    fn texts_are_printed_as_the_servers_print_them() {
        let text = format!("{B}:7,{A}:1-5:11-18:Tag_1:3:tag_2:1-2");
        let set: MysqlGtidSet = text.parse().unwrap();
        assert_eq!(set.to_string(), text.to_lowercase());
        assert!(set.is_tagged());
        let joined: MysqlGtidSet = format!("{A}:3:1-2, \n{A}:4").parse().unwrap();
        assert_eq!(joined.to_string(), format!("{A}:1-4"));
        for bad in
            [A.to_owned(), format!("{A}:0"), format!("{A}:5-3"), format!("{A}:9223372036854775807"), "x:1".into()]
        {
            assert!(bad.parse::<MysqlGtidSet>().is_err(), "{bad}");
        }
        let position: MariaPosition = "1-7-3,0-12-7".parse().unwrap();
        assert_eq!(position.to_string(), "0-12-7,1-7-3");
        assert!("0-1".parse::<MariaPosition>().is_err());
    }

    #[test]
    fn the_encoded_form_is_the_servers() {
        let set: MysqlGtidSet = format!("{B}:1-3").parse().unwrap();
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([0; 15]);
        bytes.extend([1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(set.encode(), bytes);
        let tagged: MysqlGtidSet = format!("{B}:ab:1").parse().unwrap();
        assert_eq!(tagged.encode()[..8], [1, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(tagged.encode()[24..27], [4, b'a', b'b']);
    }

    #[test]
    fn positions_compare_domain_by_domain() {
        let position = |text: &str| text.parse::<MariaPosition>().unwrap();
        assert!(position("0-1-5,1-1-9").contains(&position("0-2-5")));
        assert!(!position("0-1-5").contains(&position("1-1-1")));
        assert_eq!(position("0-1-5,1-1-9").without(&position("0-1-5,1-1-8")), position("1-1-9"));
        let mut joined = position("0-1-5");
        joined.union(&position("0-1-4,2-1-1"));
        assert_eq!(joined, position("0-1-5,2-1-1"));
    }
}
