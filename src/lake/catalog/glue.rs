//! The requests: each is repeatable, and what is there already is fine.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::form::{self, MOVED_AT, Partition, THROUGH};
use crate::config;
use crate::contract::Contract;
use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::s3::account;
use crate::net::aws::{JsonClient, Refusal};
use crate::telemetry;

/// Partitions of one request: Glue takes no more.
const BATCH: usize = 100;
/// What a table keeps when it is changed. An update says everything anew.
const KEPT: [&str; 10] = [
    "Name",
    "Description",
    "Owner",
    "Retention",
    "StorageDescriptor",
    "PartitionKeys",
    "ViewOriginalText",
    "ViewExpandedText",
    "TableType",
    "Parameters",
];
const HELP: &str = "the lake's role needs what `dataflow plan` prints for the catalog";

/// A table as it was found.
pub(super) struct Found {
    /// How far its partitions were brought.
    pub through: EpochNumber,
    /// It is new, or has other columns now.
    pub changed: bool,
}

/// A database of Glue.
pub(super) struct Glue {
    client: JsonClient,
    database: String,
}

impl Glue {
    /// No request.
    pub fn open(lake: &config::Lake, settings: &config::Glue) -> Result<Self> {
        let account = account(lake)?;
        let client = JsonClient::new("glue", "AWSGlue", &account, settings.endpoint.as_deref())?;
        Ok(Self { client, database: settings.database.to_lowercase() })
    }

    async fn ask(&self, operation: &str, mut body: Value) -> Result<Value, Refusal> {
        if operation != "GetDatabase" && operation != "CreateDatabase" {
            body["DatabaseName"] = self.database.clone().into();
        }
        let answer = self.client.call(operation, &body).await;
        let code = answer.as_ref().err().map_or("ok", |refusal| refusal.code.as_str()).to_owned();
        let labels = [("operation", operation.to_owned()), ("answer", code)];
        metrics::counter!(telemetry::CATALOG_REQUESTS_TOTAL, &labels).increment(1);
        answer
    }

    fn failed(&self, refusal: Refusal) -> Error {
        refusal.error(ErrorKind::StoreUnavailable, HELP).doing(format!("Glue database {}", self.database))
    }

    /// Makes the database when it is missing.
    pub async fn ensure_database(&self) -> Result<()> {
        match self.ask("GetDatabase", json!({ "Name": self.database })).await {
            Ok(_) => return Ok(()),
            Err(refusal) if refusal.code == "EntityNotFoundException" => {}
            Err(refusal) => return Err(self.failed(refusal)),
        }
        let wanted = json!({ "DatabaseInput": { "Name": self.database } });
        self.fine_if_there(self.ask("CreateDatabase", wanted).await)
    }

    /// Makes the table, or gives it its new columns.
    pub async fn ensure_table(&self, contract: &Contract, wanted: &Value) -> Result<Found> {
        let Some(found) = self.table(&contract.table).await? else {
            self.fine_if_there(self.ask("CreateTable", json!({ "TableInput": wanted })).await)?;
            return Ok(Found { through: 0, changed: true });
        };
        let through = found["Parameters"][THROUGH].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        let (there, wanted_there) = (plain(&found["StorageDescriptor"]), plain(&wanted["StorageDescriptor"]));
        if there == wanted_there {
            return Ok(Found { through, changed: false });
        }
        // Partitions that are elsewhere as well are made anew: an older program showed other folders.
        let through = if there.1 == wanted_there.1 { through } else { 0 };
        self.update_table(&found, |input| {
            input["StorageDescriptor"] = wanted["StorageDescriptor"].clone();
            for (name, value) in wanted["Parameters"].as_object().into_iter().flatten() {
                input["Parameters"][name] = value.clone();
            }
        })
        .await?;
        Ok(Found { through, changed: true })
    }

    /// Says something in a table's parameters.
    pub async fn note(&self, table: &str, name: &str, value: u64) -> Result<()> {
        let Some(found) = self.table(table).await? else { return Ok(()) };
        self.update_table(&found, |input| input["Parameters"][name] = value.to_string().into()).await
    }

    async fn table(&self, table: &str) -> Result<Option<Value>> {
        match self.ask("GetTable", json!({ "Name": table.to_lowercase() })).await {
            Ok(mut found) => Ok(Some(found["Table"].take())),
            Err(refusal) if refusal.code == "EntityNotFoundException" => Ok(None),
            Err(refusal) => Err(self.failed(refusal)),
        }
    }

    /// Changes a table as it was found. What others have said of it stays.
    async fn update_table(&self, found: &Value, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut input = json!({ "Parameters": {} });
        for name in KEPT.iter().filter(|name| !found[**name].is_null()) {
            input[*name] = found[*name].clone();
        }
        change(&mut input);
        let body = json!({ "TableInput": input, "SkipArchive": true });
        let changed = self.ask("UpdateTable", body).await;
        changed.map(drop).map_err(|refusal| self.failed(refusal).doing(format!("change table {}", found["Name"])))
    }

    /// Where a partition is, and since when if it was moved; `None` when it is not registered.
    pub async fn partition(&self, table: &str, hour: &str) -> Result<Option<(String, Option<DateTime<Utc>>)>> {
        let body = json!({ "TableName": table.to_lowercase(), "PartitionValues": form::values(hour) });
        let found = match self.ask("GetPartition", body).await {
            Ok(found) => found,
            Err(refusal) if refusal.code == "EntityNotFoundException" => return Ok(None),
            Err(refusal) => return Err(self.failed(refusal)),
        };
        let found = &found["Partition"];
        let location = text(&found["StorageDescriptor"]["Location"]).to_owned();
        Ok(Some((location, found["Parameters"][MOVED_AT].as_str().and_then(|text| text.parse().ok()))))
    }

    /// Registers partitions, and changes those that are there already. Returns how many were new, and how many were there
    /// and are compacted.
    pub async fn register(&self, table: &str, partitions: &[Partition]) -> Result<(u64, u64)> {
        let (mut registered, mut moved) = (0, 0);
        for batch in partitions.chunks(BATCH) {
            let inputs: Vec<Value> = batch.iter().map(|p| form::partition(p, Utc::now())).collect();
            let body = json!({ "TableName": table.to_lowercase(), "PartitionInputList": inputs });
            let answer = self.ask("BatchCreatePartition", body).await.map_err(|refusal| self.failed(refusal))?;
            let there = self.refused(table, &answer, Some("AlreadyExistsException"))?;
            registered += (batch.len() - there.len()) as u64;
            let is_there = |p: &&Partition| there.contains(&form::values(&p.hour));
            let changed: Vec<Partition> = batch.iter().filter(is_there).cloned().collect();
            moved += changed.iter().filter(|p| p.moved).count() as u64;
            self.update(table, &changed).await?;
        }
        Ok((registered, moved))
    }

    /// Gives partitions that are there their place and their columns.
    pub async fn update(&self, table: &str, partitions: &[Partition]) -> Result<()> {
        let entry = |p: &Partition| {
            let input = form::partition(p, Utc::now());
            json!({ "PartitionValueList": form::values(&p.hour), "PartitionInput": input })
        };
        let entries: Vec<Value> = partitions.iter().map(entry).collect();
        for entries in entries.chunks(BATCH) {
            let body = json!({ "TableName": table.to_lowercase(), "Entries": entries });
            let answer = self.ask("BatchUpdatePartition", body).await.map_err(|refusal| self.failed(refusal))?;
            self.refused(table, &answer, None)?;
        }
        Ok(())
    }

    /// The partitions that a batch refused with the code that is fine; any other is an error.
    fn refused(&self, table: &str, answer: &Value, fine: Option<&str>) -> Result<Vec<Vec<String>>> {
        let mut found = Vec::new();
        for error in answer["Errors"].as_array().into_iter().flatten() {
            let values = error.get("PartitionValues").or(error.get("PartitionValueList")).cloned().unwrap_or_default();
            let values: Vec<String> = serde_json::from_value(values).unwrap_or_default();
            let detail = &error["ErrorDetail"];
            if fine.is_none() || detail["ErrorCode"].as_str() != fine {
                let what = format!("Glue refuses partition {} of table {table}: {detail}", values.join("/"));
                return Err(Error::new(ErrorKind::StoreUnavailable, what).help(HELP));
            }
            found.push(values);
        }
        Ok(found)
    }

    fn fine_if_there(&self, answer: Result<Value, Refusal>) -> Result<()> {
        match answer {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.code == "AlreadyExistsException" => Ok(()),
            Err(refusal) => Err(self.failed(refusal)),
        }
    }
}

/// What decides whether a table is as it should be: columns and place. Glue adds defaults of its own to the rest.
fn plain(storage: &Value) -> (Vec<(&str, &str)>, &str) {
    (named(&storage["Columns"]), text(&storage["Location"]))
}

/// Names and types of columns.
fn named(columns: &Value) -> Vec<(&str, &str)> {
    columns.as_array().into_iter().flatten().map(|column| (text(&column["Name"]), text(&column["Type"]))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
