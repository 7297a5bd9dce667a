//! What the fold knows of a key.

use super::keys::{At, KeyAt};
use crate::batch::Seq;

/// Which row each column comes from.
#[derive(Debug, Clone)]
pub(super) enum Sources {
    One(At),
    Each(Box<[At]>),
}

impl Sources {
    pub fn of(&self, column: usize) -> At {
        match self {
            Self::One(at) => *at,
            Self::Each(each) => each[column],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing is known of the key yet; of a version: it was refused.
    Absent,
    /// What is known stands in an earlier round, so the warehouse knows more when this one comes.
    Staged,
    Row,
    /// Deleted, or left by a move (then it is not counted).
    Deleted {
        counted: bool,
    },
}

/// What the fold knows of a key, or one version of it.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub kind: Kind,
    /// The newest so far.
    pub seq: Seq,
    /// The change that made it.
    pub at: At,
    pub key: KeyAt,
    pub sources: Sources,
    pub base: Option<Base>,
    /// The round in which it is merged.
    pub round: u32,
}

/// The row of the warehouse that a row stands on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    /// Its key.
    pub key: KeyAt,
    /// The first change that stands on it; after a move: the move that left its key.
    pub seq: Seq,
    /// After a move: what the row's own key holds is the base instead when it is at least this new; `None` = always.
    pub arrived: Option<Seq>,
    pub moved: bool,
}
