//! A statement as the API knows it: how it stands, what it gave.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{new_id, seconds};

/// <https://docs.aws.amazon.com/redshift/latest/mgmt/data-api-troubleshooting.html>
const ROW_BYTES: usize = 64 * 1024;
const RESULT_BYTES: usize = 500 * 1024 * 1024;

/// One statement.
#[derive(Debug)]
pub(super) struct Statement {
    pub id: String,
    pub session: String,
    pub sql: String,
    created: Instant,
    /// Ends with the statement.
    ended: watch::Sender<bool>,
    stand: Mutex<Stand>,
}

#[derive(Debug, Default)]
struct Stand {
    status: &'static str,
    /// By which what runs is cancelled.
    key: Option<Vec<u8>>,
    cancelled: bool,
    gave: Gave,
}

/// What a statement gave.
#[derive(Debug, Default, Clone)]
pub(super) struct Gave {
    /// The types of its columns, when it has a result set.
    pub types: Option<Vec<u32>>,
    pub rows: Vec<Vec<Option<String>>>,
    /// The number in the command's tag.
    pub affected: Option<u64>,
    pub error: Option<String>,
}

impl Statement {
    pub fn new(session: &str, sql: &str) -> Arc<Self> {
        let stand = Mutex::new(Stand { status: "SUBMITTED", ..Stand::default() });
        Arc::new(Self {
            id: new_id(),
            session: session.to_owned(),
            sql: sql.to_owned(),
            created: Instant::now(),
            ended: watch::Sender::new(false),
            stand,
        })
    }

    fn stand(&self) -> MutexGuard<'_, Stand> {
        self.stand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn runs(&self) -> bool {
        !*self.ended.borrow()
    }

    /// It is handed to the session that this key cancels.
    pub fn started(&self, key: &[u8]) {
        let mut stand = self.stand();
        stand.status = "STARTED";
        stand.key = Some(key.to_vec());
    }

    pub fn ends(&self, mut gave: Gave) {
        let too_large = gave.rows.iter().map(|row| row.iter().flatten().map(String::len).sum::<usize>());
        let (longest, all) = too_large.fold((0, 0), |(longest, all), row| (row.max(longest), all + row));
        if longest > ROW_BYTES {
            gave = Gave {
                error: Some(format!("Packet for query is too large ({longest} > {ROW_BYTES})")),
                ..Gave::default()
            };
        } else if all > RESULT_BYTES {
            gave = Gave { error: Some("Database response exceeded size limit".into()), ..Gave::default() };
        }
        {
            let mut stand = self.stand();
            stand.status = match (&gave.error, stand.cancelled) {
                (None, _) => "FINISHED",
                (Some(_), true) => "ABORTED",
                (Some(_), false) => "FAILED",
            };
            stand.gave = gave;
        }
        self.ended.send_replace(true);
    }

    /// What cancels it, while it runs.
    pub fn cancel(&self) -> Option<Vec<u8>> {
        let mut stand = self.stand();
        let key = stand.key.clone().filter(|_| stand.status == "STARTED")?;
        stand.cancelled = true;
        Some(key)
    }

    /// Waits until it has ended, but no longer.
    pub async fn wait(&self, wait: Option<u64>) {
        if let Some(wait) = wait {
            let mut ended = self.ended.subscribe();
            let _in_time = tokio::time::timeout(Duration::from_secs(wait), ended.wait_for(|ended| *ended)).await;
        }
    }

    /// `waited`: only then its state is told.
    pub fn submitted(&self, waited: bool) -> Value {
        let mut told = json!({"Id": self.id, "SessionId": self.session, "CreatedAt": seconds(self.created)});
        let stand = self.stand();
        if waited {
            told["Status"] = stand.status.into();
        }
        if waited && stand.status == "FINISHED" {
            told["HasResultSet"] = stand.gave.types.is_some().into();
        }
        told
    }

    pub fn described(&self) -> Value {
        let stand = self.stand();
        let rows = stand.gave.affected.map_or(-1, |rows| i64::try_from(rows).unwrap_or(-1));
        let mut told = json!({
            "Id": self.id,
            "SessionId": self.session,
            "CreatedAt": seconds(self.created),
            "Status": stand.status,
            "QueryString": self.sql,
            "HasResultSet": stand.gave.types.is_some(),
            "ResultRows": rows,
        });
        if let Some(error) = &stand.gave.error {
            told["Error"] = error.as_str().into();
        }
        told
    }

    /// Rows from the `from`-th on; nothing: there is no result set.
    pub fn page(&self, from: usize, most: usize) -> Option<Value> {
        let stand = self.stand();
        let types = stand.gave.types.as_ref().filter(|_| stand.status == "FINISHED")?;
        let rows = stand.gave.rows.get(from..)?;
        let field = |(cell, of): (&Option<String>, &u32)| field(cell.as_deref(), *of);
        let record = |row: &Vec<Option<String>>| row.iter().zip(types).map(field).collect::<Vec<_>>();
        let mut page = json!({
            "Records": rows.iter().take(most).map(record).collect::<Vec<_>>(),
            "TotalNumRows": stand.gave.rows.len(),
        });
        if rows.len() > most {
            page["NextToken"] = (from + most).to_string().into();
        }
        Some(page)
    }
}

/// One value: integers are long values, floats double values, the rest but booleans are strings.
/// <https://docs.aws.amazon.com/redshift-data/latest/APIReference/API_Field.html>
fn field(cell: Option<&str>, of: u32) -> Value {
    let Some(text) = cell else { return json!({"isNull": true}) };
    match of {
        16 => json!({"booleanValue": text == "t"}),
        20 | 21 | 23 | 26 => text.parse::<i64>().map_or(Value::Null, |number| json!({"longValue": number})),
        // What is no number in JSON is a string: <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>.
        700 => text.parse::<f32>().map_or(Value::Null, |number| double(text, f64::from(number))),
        701 => text.parse::<f64>().map_or(Value::Null, |number| double(text, number)),
        _ => json!({"stringValue": text}),
    }
}

fn double(text: &str, number: f64) -> Value {
    if number.is_finite() { json!({"doubleValue": number}) } else { json!({"doubleValue": text}) }
}
