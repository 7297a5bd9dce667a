//! The partitions that hold the rows of a table: which there are, and what has happened to them.
//!
//! The publication shows changes under the name of the root. Rows that come with a partition, go with it, or are emptied
//! out of one alone (that TRUNCATE is published for none) are told by no event.

use serde::{Deserialize, Serialize};

use super::catalog::Publication;

/// A partition that holds rows.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub(super) struct Leaf {
    /// Its number in the catalog.
    pub id: u32,
    /// Its file.
    pub file: u32,
    /// Of the moment: it was attached, and not made as a partition of what it belongs to now.
    pub attached: bool,
    /// Of the moment: nobody has counted its rows since it got its file.
    pub fresh: bool,
    /// Of the moment: the transaction that wrote its entry in the catalog.
    pub xid: u32,
}

impl From<(u32, u32)> for Leaf {
    fn from((id, file): (u32, u32)) -> Self {
        Self { id, file, ..Self::default() }
    }
}

impl From<Leaf> for (u32, u32) {
    fn from(leaf: Leaf) -> Self {
        (leaf.id, leaf.file)
    }
}

impl PartialEq for Leaf {
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.file) == (other.id, other.file)
    }
}

impl Eq for Leaf {}

impl Leaf {
    /// Whether its file is a new one without the rows of the old one: TRUNCATE. What writes rows anew (VACUUM FULL,
    /// CLUSTER) counts them.
    pub fn was_emptied(&self, before: &Self) -> bool {
        self.file != before.file && self.fresh
    }

    /// What [`leaves`] has of one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ').map(str::parse::<u32>);
        let mut next = || words.next()?.ok();
        let (id, file, xid) = (next()?, next()?, next()?);
        Some(Self { id, file, xid, fresh: next()? == 1, attached: next()? == 1 })
    }
}

/// The leaves of `c`, a partitioned table: [`Leaf`]s between commas. One that was made as a partition has a link to its
/// parent that is as old as itself; of one that was attached, or came with what was attached, a link is newer. Takes no
/// lock on any of them.
pub(super) fn leaves(shown_by: Publication<'_>) -> String {
    let fresh = if shown_by.version >= 140_000 { "f.reltuples < 0" } else { "f.relpages = 0" };
    const STAYS: &str = "to_jsonb(i) ->> 'inhdetachpending' IS DISTINCT FROM 'true'";
    format!(
        "WITH RECURSIVE tree (id, link, newest) AS ( \
           SELECT i.inhrelid, i.xmin, age(i.xmin) FROM pg_inherits i WHERE i.inhparent = c.oid AND {STAYS} UNION ALL \
           SELECT i.inhrelid, i.xmin, least(tree.newest, age(i.xmin)) FROM tree JOIN pg_inherits i \
             ON i.inhparent = tree.id WHERE {STAYS}) \
         SELECT coalesce(string_agg(concat_ws(' ', f.oid, f.relfilenode, f.xmin, ({fresh})::int, \
           (tree.link <> born.xmin OR tree.newest < age(born.xmin))::int), ',' ORDER BY f.oid), '') \
         FROM tree JOIN pg_class f ON f.oid = tree.id AND f.relkind <> 'p' \
         JOIN pg_attribute born ON born.attrelid = f.oid AND born.attnum = -1"
    )
}
