//! What a load stages before its transaction begins: nobody waits for an upload while the group is locked.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;
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

/// How many files of a round are written and put at the same time.
const FILES_AT_ONCE: usize = 4;

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
        let files = Files { staging, file_bytes: self.file_bytes };
        let folder = self.group(&unit.group).lock.trim_start_matches("_dataflow_lock_").to_owned();
        let name = format!("{folder}/{}", Ulid::new());
        let mut uploaded = Uploaded { works: Vec::new(), name, objects: Vec::new() };
        for (number, load) in unit.tables.iter().enumerate() {
            let before = known(&load.contract.table);
            let floor = before.floor.max(load.truncate.map(|seq| (seq, load.truncated_at_us)));
            let layout = self.layout(&load.contract.table);
            let mut work = Work { load, floor, rounds: Vec::new() };
            let first = TableLoad { later: Vec::new(), ..load.clone() };
            let rounds =
                std::iter::once(first).chain(load.later_rounds()).flat_map(|round| apart(round, &before, floor));
            for (part, round) in rounds.enumerate() {
                let stage = format!("_dataflow_stage_{number}_{part}");
                let name = format!("{}-{number}-{part}", uploaded.name);
                let range = range::of(&round, &layout);
                let staged = stage_round(&files, round, stage, name, &before, floor, &mut uploaded.objects).await;
                match staged {
                    Ok(None) => {}
                    Ok(Some(round)) => {
                        let layout =
                            if round.form.documents == Documents::Whole { lies(&layout) } else { String::new() };
                        work.rounds.push(Round { range, layout, ..round });
                    }
                    Err(error) => {
                        staging.discard(&uploaded.objects).await;
                        return Err(error);
                    }
                }
            }
            uploaded.works.push(work);
        }
        Ok(uploaded)
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

/// `None` when there are no rows.
async fn stage_round(
    files: &Files<'_>,
    load: TableLoad,
    stage: String,
    name: String,
    before: &Known,
    floor: Option<(Seq, i64)>,
    objects: &mut Vec<String>,
) -> Result<Option<Round>> {
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
    let form = StageForm::new(kind, documents);
    let mut round = Round {
        load: Arc::new(load),
        stage,
        form,
        layout: String::new(),
        shape,
        marked,
        low: low.map(|(seq, at)| (seq, time(at))),
        range: None,
        rows: 0,
        documents: Kinds::default(),
        manifest: String::new(),
    };
    put_files(files, &mut round, &name, floor.map(|(seq, _)| seq), objects).await?;
    Ok((shape.rows > 0).then_some(round))
}

/// Where files go, and how large they are.
struct Files<'a> {
    staging: &'a dyn Staging,
    file_bytes: u64,
}

/// Writes a round's files, a few at a time, and the manifest that names them all.
async fn put_files(
    files: &Files<'_>,
    round: &mut Round,
    name: &str,
    floor: Option<Seq>,
    objects: &mut Vec<String>,
) -> Result<()> {
    let parts = parts(&round.load.rows, files.file_bytes);
    let file_name = |number: usize| match parts.len() {
        1 => format!("{name}.parquet"),
        _ => format!("{name}-{number}.parquet"),
    };
    let manifest = format!("{name}.manifest");
    let names: Vec<String> = (0..parts.len()).map(file_name).collect();
    // Whatever happens, what may be there is taken away.
    objects.extend(names.iter().cloned().chain([manifest.clone()]));
    let put = |(part, name): (Part, String)| {
        put_file(files.staging, Arc::clone(&round.load), part, name, (round.form, round.marked, floor))
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
    Ok(())
}

/// A file that is where it is loaded from.
struct PutFile {
    /// Its entry in the manifest; none, and no file, for no rows.
    entry: Option<serde_json::Value>,
    rows: u64,
    documents: Kinds,
}

async fn put_file(
    staging: &dyn Staging,
    load: Arc<TableLoad>,
    part: Part,
    name: String,
    (form, marked, floor): (StageForm, bool, Option<Seq>),
) -> Result<PutFile> {
    let table = load.contract.table.clone();
    // Compression is work for a thread that may block.
    let encoded = tokio::task::spawn_blocking(move || encode(&load, &part, form, marked, floor)).await;
    let unwritten = |error| Error::new(ErrorKind::Internal, format!("write the stage of table {table}")).because(error);
    let Staged { body, rows, documents } = encoded.map_err(unwritten)??;
    if rows == 0 {
        return Ok(PutFile { entry: None, rows, documents });
    }
    let entry = json!({"url": staging.url(&name), "mandatory": true, "meta": {"content_length": body.len()}});
    staging.put(&name, body).await?;
    Ok(PutFile { entry: Some(entry), rows, documents })
}
