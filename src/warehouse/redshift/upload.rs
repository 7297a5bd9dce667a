//! What a load stages before its transaction begins: nobody waits for an upload while the group is locked.

use std::sync::Arc;

use futures::future;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;
use tokio::sync::Semaphore;
use ulid::Ulid;

use super::documents::{Kinds, any_large, has_documents, take_large};
use super::layout::lies;
use super::parts::{Part, parts};
use super::sql::{Documents, StageForm, StageKind, time};
use super::stage::{Staged, encode};
use super::state::Known;
use super::{Redshift, not_staged, range};
use crate::batch::Seq;
use crate::epoch::{DeleteMode, LoadUnit, TableLoad};
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::merge::Range;
use crate::warehouse::shape::Shape;
use crate::warehouse::staging::Staging;

/// How many files of a unit are written and put at the same time: each is in memory meanwhile.
const FILES_AT_ONCE: usize = 4;
/// How many rounds of a unit are staged at the same time: a little more, because one that waits for its manifest holds no file.
const ROUNDS_AT_ONCE: usize = 2 * FILES_AT_ONCE;

/// One table's part of a unit.
pub(super) struct Work<'a> {
    pub load: &'a TableLoad,
    /// The truncate floor after the unit.
    pub floor: Option<(Seq, i64)>,
    /// The unit's rows, and what can only be merged when these have been.
    pub rounds: Vec<Round>,
}

/// Rows that are merged at once.
pub(super) struct Round {
    pub load: Arc<TableLoad>,
    /// The stage's name.
    pub stage: String,
    pub form: StageForm,
    /// How its rows lie, where they must lie as the table's do: the words behind the columns.
    pub layout: String,
    pub shape: Shape,
    /// Tombstones or refused versions matter.
    pub marked: bool,
    /// The floor, with its time as a literal, when a row is older than it.
    pub low: Option<(Seq, String)>,
    /// The keys between which the target must be looked at.
    pub range: Option<Range>,
    /// Rows in its files.
    pub rows: u64,
    /// What the files' documents are, where they are staged as such.
    pub documents: Kinds,
    /// The manifest of its files.
    pub manifest: String,
}

/// Everything that a unit has staged.
pub(super) struct Uploaded<'a> {
    pub works: Vec<Work<'a>>,
    /// What the names of its objects begin with.
    pub name: String,
    /// The names of the objects.
    pub objects: Vec<String>,
}

impl Redshift {
    /// Stages the rows of every table of the unit.
    pub(super) async fn upload<'a>(&self, unit: &'a LoadUnit, known: impl Fn(&str) -> Known) -> Result<Uploaded<'a>> {
        let staging = self.staging.as_deref().ok_or_else(not_staged)?;
        let folder = self.group(&unit.group).lock.trim_start_matches("_dataflow_lock_").to_owned();
        let mut uploaded =
            Uploaded { works: Vec::new(), name: format!("{folder}/{}", Ulid::new()), objects: Vec::new() };
        let mut planned = Vec::new();
        for (table, load) in unit.tables.iter().enumerate() {
            let before = known(&load.contract.table);
            let floor = before.floor.max(load.truncate.map(|seq| (seq, load.truncated_at_us)));
            uploaded.works.push(Work { load, floor, rounds: Vec::new() });
            planned.extend(self.plan(load, &before, floor, &format!("{}-{table}", uploaded.name), table));
        }
        // Whatever happens, what may be there is taken away.
        uploaded.objects = planned.iter().flat_map(Planned::objects).collect();
        let files = Files { staging, at_once: Semaphore::new(FILES_AT_ONCE) };
        let put = stream::iter(planned).map(|round| round.put(&files)).buffered(ROUNDS_AT_ONCE);
        let put = put.try_for_each(|(table, round)| {
            uploaded.works[table].rounds.extend(round);
            future::ready(Ok(()))
        });
        match put.await {
            Ok(()) => Ok(uploaded),
            Err(error) => {
                staging.discard(&uploaded.objects).await;
                Err(error)
            }
        }
    }

    /// The rounds of a table, in their order. `name` is what their objects' names begin with.
    fn plan(
        &self,
        load: &TableLoad,
        before: &Known,
        floor: Option<(Seq, i64)>,
        name: &str,
        table: usize,
    ) -> Vec<Planned> {
        let layout = self.layout(&load.contract.table);
        let first = TableLoad { later: Vec::new(), ..load.clone() };
        let rounds = std::iter::once(first).chain(load.later_rounds()).flat_map(|round| apart(round, before, floor));
        let plan = |(part, round): (usize, TableLoad)| {
            let range = range::of(&round, &layout);
            let mut round = round_of(round, format!("_dataflow_stage_{table}_{part}"), before, floor);
            if round.form.documents == Documents::Whole {
                round.layout = lies(&layout);
            }
            let (parts, name) = (parts(&round.load.rows, self.file_bytes), format!("{name}-{part}"));
            Planned { table, round: Round { range, ..round }, parts, name, floor: floor.map(|(seq, _)| seq) }
        };
        rounds.enumerate().map(plan).collect()
    }

    /// Removes what was staged.
    pub(super) async fn discard(&self, objects: &[String]) {
        if let Some(staging) = &self.staging {
            staging.discard(objects).await;
        }
    }
}

/// What a round asks of its merge.
struct Needed {
    /// The floor, when a row is older than it.
    low: Option<(Seq, i64)>,
    /// Tombstones or refused versions matter.
    marked: bool,
    /// Every row is a whole upsert, and nothing else matters.
    plain: bool,
}

impl Needed {
    fn by(load: &TableLoad, shape: &Shape, before: &Known, floor: Option<(Seq, i64)>) -> Self {
        let low = floor.filter(|(floor, _)| shape.oldest.is_some_and(|oldest| oldest < *floor));
        let marked = shape.refused || load.keep_tombstones || before.marked;
        let plain = shape.plain() && !marked && low.is_none() && load.mode != DeleteMode::History;
        Self { low, marked, plain }
    }
}

/// The rounds that a round is made of: whole rows with documents that are too long for a text come last and by themselves,
/// where nothing but the newest row of a key matters.
fn apart(mut load: TableLoad, before: &Known, floor: Option<(Seq, i64)>) -> Vec<TableLoad> {
    let Needed { low, marked, .. } = Needed::by(&load, &Shape::of(&load), before, floor);
    let keyed = !load.contract.output.key.is_empty();
    let large = match keyed && (marked || low.is_some() || load.mode == DeleteMode::History) {
        true => None,
        false => take_large(&mut load),
    };
    std::iter::once(load).chain(large).collect()
}

/// A round whose files are still to be put.
fn round_of(load: TableLoad, stage: String, before: &Known, floor: Option<(Seq, i64)>) -> Round {
    let shape = Shape::of(&load);
    let Needed { low, marked, plain } = Needed::by(&load, &shape, before, floor);
    let kind = match (load.contract.output.key.is_empty(), plain) {
        (true, _) => StageKind::Append,
        (false, true) => StageKind::Plain,
        (false, false) => StageKind::Merge,
    };
    let documents = match kind {
        _ if any_large(&load) => Documents::Whole,
        StageKind::Merge if shape.partial && has_documents(&load.contract.output) => Documents::Beside,
        _ => Documents::Text,
    };
    Round {
        load: Arc::new(load),
        stage,
        form: StageForm::new(kind, documents),
        layout: String::new(),
        shape,
        marked,
        low: low.map(|(seq, at)| (seq, time(at))),
        range: None,
        rows: 0,
        documents: Kinds::default(),
        manifest: String::new(),
    }
}

/// Where files go, and how many may be on their way.
struct Files<'a> {
    staging: &'a dyn Staging,
    at_once: Semaphore,
}

/// A round, and the files that it goes into.
struct Planned {
    /// The number of its table in the unit.
    table: usize,
    round: Round,
    parts: Vec<Part>,
    /// What the names of its objects begin with.
    name: String,
    /// The truncate floor after the unit.
    floor: Option<Seq>,
}

impl Planned {
    fn manifest(&self) -> String {
        format!("{}.manifest", self.name)
    }

    fn files(&self) -> Vec<String> {
        match self.parts.len() {
            1 => vec![format!("{}.parquet", self.name)],
            several => (0..several).map(|number| format!("{}-{number}.parquet", self.name)).collect(),
        }
    }

    fn objects(&self) -> Vec<String> {
        self.files().into_iter().chain([self.manifest()]).collect()
    }

    /// Writes the files, and the manifest that names them all; with the number of the table. No round when there are no rows.
    async fn put(self, files: &Files<'_>) -> Result<(usize, Option<Round>)> {
        let (names, manifest) = (self.files(), self.manifest());
        let Self { table, mut round, parts, floor, .. } = self;
        let put = |(part, name): (Part, String)| {
            put_file(files, Arc::clone(&round.load), part, name, (round.form, round.marked, floor))
        };
        let mut put = stream::iter(parts.into_iter().zip(names)).map(put).buffered(FILES_AT_ONCE);
        let (mut entries, mut rows, mut documents) = (Vec::new(), 0, None::<Kinds>);
        while let Some(file) = put.try_next().await? {
            rows += file.rows;
            entries.extend(file.entry);
            match &mut documents {
                Some(documents) => documents.add(&file.documents),
                None => documents = Some(file.documents),
            }
        }
        drop(put);
        if rows > 0 {
            files.staging.put(&manifest, json!({"entries": entries}).to_string().into()).await?;
            round.manifest = files.staging.url(&manifest);
        }
        (round.rows, round.documents) = (rows, documents.unwrap_or_default());
        Ok((table, (round.shape.rows > 0).then_some(round)))
    }
}

/// A file that is where it is loaded from.
struct PutFile {
    /// Its entry in the manifest; none, and no file, for no rows.
    entry: Option<serde_json::Value>,
    rows: u64,
    documents: Kinds,
}

async fn put_file(
    files: &Files<'_>,
    load: Arc<TableLoad>,
    part: Part,
    name: String,
    (form, marked, floor): (StageForm, bool, Option<Seq>),
) -> Result<PutFile> {
    let closed = |error| Error::new(ErrorKind::Internal, "wait to write a stage").because(error);
    let _turn = files.at_once.acquire().await.map_err(closed)?;
    let table = load.contract.table.clone();
    // Compression is work for a thread that may block.
    let encoded = tokio::task::spawn_blocking(move || encode(&load, &part, form, marked, floor)).await;
    let unwritten = |error| Error::new(ErrorKind::Internal, format!("write the stage of table {table}")).because(error);
    let Staged { body, rows, documents } = encoded.map_err(unwritten)??;
    if rows == 0 {
        return Ok(PutFile { entry: None, rows, documents });
    }
    let entry = json!({"url": files.staging.url(&name), "mandatory": true, "meta": {"content_length": body.len()}});
    files.staging.put(&name, body).await?;
    Ok(PutFile { entry: Some(entry), rows, documents })
}
