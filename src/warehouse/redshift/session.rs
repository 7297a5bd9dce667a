//! One session, over a connection of its own or through the Data API: plain statements one at a time.

use std::sync::Arc;
use std::time::Duration;

use super::api::{self, DataApi};
use super::{text, wire};
use crate::error::Result;

/// The longest `statement_timeout` that a server takes, milliseconds.
const MOST_MS: u128 = i32::MAX as u128;

/// What every session begins with.
pub(super) fn settings(limit: Duration, query_group: Option<&str>) -> Vec<String> {
    // Times are compared and written as UTC, however the user is set up. The server gives up when we do, also when we are
    // not there any more to say so.
    // Of equal names in an object JSON_PARSE keeps the last, instead of refusing the document:
    // <https://docs.aws.amazon.com/redshift/latest/dg/super-configurations.html#parsing-options-super>.
    let last_attribute = "SET json_parse_dedup_attributes TO on".to_owned();
    let mut settings = vec!["SET timezone TO 'UTC'".to_owned(), last_attribute, timeout(limit)];
    settings.extend(query_group.map(|group| format!("SET query_group TO {}", text(group))));
    settings
}

/// Ends statements that take longer.
pub(super) fn timeout(limit: Duration) -> String {
    format!("SET statement_timeout TO {}", limit.as_millis().min(MOST_MS))
}

/// What a statement gave.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Every value as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// The number in the command's tag.
    pub affected: u64,
}

impl Answer {
    /// The value in the first row's first column.
    pub fn single(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

/// A session.
pub(super) enum Session {
    Wire(Box<wire::Session>),
    Api(api::Session),
}

impl Session {
    /// A session through the Data API.
    pub async fn through(api: &Arc<DataApi>) -> Result<Self> {
        api::Session::open(api).await.map(Self::Api)
    }

    /// Runs one statement. `table`: the one that it is about.
    pub async fn run(&mut self, statement: &str, table: Option<&str>) -> Result<Answer> {
        let mut rows = Vec::new();
        let affected = self.each(statement, table, |row| {
            rows.push(row);
            Ok(())
        });
        let affected = affected.await?;
        Ok(Answer { rows, affected })
    }

    /// Runs one statement, and hands its rows over as they come; the number of rows that it changed. After an error of `take`
    /// the session can only be dropped.
    pub async fn each(
        &mut self,
        statement: &str,
        table: Option<&str>,
        take: impl FnMut(Vec<Option<String>>) -> Result<()> + Send,
    ) -> Result<u64> {
        match self {
            Self::Wire(session) => session.each(statement, table, take).await,
            Self::Api(session) => session.each(statement, table, take).await,
        }
    }

    /// The rows of all queries together, in as few statements as take them. They have the same columns.
    pub async fn all(&mut self, queries: &[String], table: Option<&str>) -> Result<Vec<Vec<Option<String>>>> {
        let mut rows = Vec::new();
        for queries in portions(queries, UNION_ALL.len(), self.statement_bytes()) {
            rows.extend(self.run(&queries.join(UNION_ALL), table).await?.rows);
        }
        Ok(rows)
    }

    /// How long a statement may be.
    pub fn statement_bytes(&self) -> usize {
        match self {
            Self::Wire(_) => wire::STATEMENT_BYTES,
            Self::Api(_) => api::STATEMENT_BYTES,
        }
    }

    /// Whether it can still be used, as far as is known without asking. For a session that nobody is using.
    pub fn lives(&mut self) -> bool {
        match self {
            Self::Wire(session) => session.lives(),
            Self::Api(session) => session.lives(),
        }
    }
}

const UNION_ALL: &str = " UNION ALL ";

/// As many of the parts at once as go into so many bytes, with so many between each two.
pub(super) fn portions(mut parts: &[String], between: usize, most_bytes: usize) -> Vec<&[String]> {
    let mut portions = Vec::new();
    while !parts.is_empty() {
        let mut bytes = 0;
        let fits = |part: &&String| {
            bytes += part.len() + between;
            bytes <= most_bytes
        };
        let (portion, rest) = parts.split_at(parts.iter().take_while(fits).count().max(1));
        portions.push(portion);
        parts = rest;
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_takes_what_fits() {
        let sizes = |lengths: &[usize]| -> Vec<usize> {
            let values: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
            portions(&values, 2, 100).into_iter().map(<[String]>::len).collect()
        };
        assert_eq!(sizes(&[98, 1, 101, 5]), [1, 1, 1, 1]);
        assert_eq!(sizes(&[48, 48, 48]), [2, 1]);
        assert!(sizes(&[]).is_empty());
    }
}
