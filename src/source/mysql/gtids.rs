//! The transactions that were read, in the words of either family.

use super::setup::Flavour;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::binlog::Gtid;
use crate::wire::gtid::{MariaGtid, MariaPosition, MysqlGtidSet};

/// What a place says of GTIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gtids {
    /// The server writes none.
    None,
    MySql(MysqlGtidSet),
    MariaDb(MariaPosition),
}

/// One transaction.
#[derive(Debug, Clone)]
pub(super) enum Transaction {
    MySql(Gtid),
    MariaDb(MariaGtid),
}

impl Gtids {
    /// Reads what stands in a place.
    pub fn parse(flavour: Flavour, text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::None) };
        let parsed = match flavour {
            Flavour::MySql => text.parse().map(Self::MySql),
            Flavour::MariaDb => text.parse().map(Self::MariaDb),
        };
        parsed.map_err(|error: String| {
            Error::new(ErrorKind::PositionLost, format!("read the GTIDs `{text}` that the log has")).because(error).help(
                "MySQL and MariaDB do not have each other's GTIDs: give the source another name in the topology when the \
                 server was replaced by one of the other family",
            )
        })
    }

    /// Counts a transaction as read. A server that did not write GTIDs and does now has an unknown history.
    pub fn add(&mut self, transaction: &Transaction) {
        match (self, transaction) {
            (Self::MySql(set), Transaction::MySql(gtid)) => set.add(gtid.uuid, gtid.tag.as_ref(), gtid.number),
            (Self::MariaDb(position), Transaction::MariaDb(gtid)) => position.add(*gtid),
            _ => {}
        }
    }

    /// As the place has it.
    pub fn shown(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::MySql(set) => Some(set.to_string()),
            Self::MariaDb(position) => Some(position.to_string()),
        }
    }

    /// What of `self` the server with `other` lacks; `None` when nothing.
    pub fn missing_in(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::MySql(ours), Self::MySql(theirs)) => {
                let missing = ours.without(theirs);
                (!missing.is_empty()).then(|| missing.to_string())
            }
            (Self::MariaDb(ours), Self::MariaDb(theirs)) => {
                let missing = ours.without(theirs);
                (!missing.is_empty()).then(|| missing.to_string())
            }
            (Self::None, _) => None,
            (ours, _) => ours.shown(),
        }
    }
}
