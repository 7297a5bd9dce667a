//! MariaDB's state of a log: what its positions leave out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::MariaGtid;

/// Of each server in each domain the last transaction, as `gtid_binlog_state` has it: a server numbers its own upwards,
/// so it has passed every lower one of that server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MariaState {
    last: BTreeMap<(u32, u32), u64>,
}

impl MariaState {
    /// Goes on to this transaction.
    pub fn add(&mut self, gtid: MariaGtid) {
        let last = self.last.entry((gtid.domain, gtid.server)).or_default();
        *last = gtid.sequence.max(*last);
    }

    /// Whether it has passed this transaction.
    pub fn has(&self, gtid: MariaGtid) -> bool {
        self.last.get(&(gtid.domain, gtid.server)).is_some_and(|last| *last >= gtid.sequence)
    }

    /// The last transactions, by domain and server.
    pub fn iter(&self) -> impl Iterator<Item = MariaGtid> + '_ {
        self.last.iter().map(|((domain, server), last)| MariaGtid { domain: *domain, server: *server, sequence: *last })
    }

    /// What stands further here than in `other`.
    pub fn without(&self, other: &Self) -> Self {
        self.iter().filter(|gtid| !other.has(*gtid)).collect()
    }
}

impl FromIterator<MariaGtid> for MariaState {
    fn from_iter<T: IntoIterator<Item = MariaGtid>>(gtids: T) -> Self {
        let mut state = Self::default();
        gtids.into_iter().for_each(|gtid| state.add(gtid));
        state
    }
}

impl fmt::Display for MariaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, gtid) in self.iter().enumerate() {
            write!(f, "{}{gtid}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for MariaState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').filter(|part| !part.trim().is_empty()).map(str::parse::<MariaGtid>).collect()
    }
}

impl Serialize for MariaState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MariaState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn servers_of_one_domain_are_told_apart() {
        let state = |text: &str| text.parse::<MariaState>().unwrap();
        let theirs = state("0-1-110, 0-2-101,1-2-7");
        assert_eq!(theirs.to_string(), "0-1-110,0-2-101,1-2-7");
        assert_eq!(theirs.without(&state("0-1-120,0-2-100")), state("0-2-101,1-2-7"));
        assert_eq!(theirs.without(&theirs), MariaState::default());
        let mut ours = state("0-1-110");
        ours.add("0-1-109".parse().unwrap());
        assert!(ours.has("0-1-110".parse().unwrap()) && !ours.has("0-2-1".parse().unwrap()));
        assert!("0-1".parse::<MariaState>().is_err());
    }
}
