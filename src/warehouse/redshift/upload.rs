//! What a load stages before its transaction begins: nobody waits for an upload while the group is locked.

use serde_json::json;
use ulid::Ulid;

use super::documents::{Kinds, any_large, has_documents, take_large};
use super::layout::lies;
use super::sql::{Documents, StageForm, StageKind, time};
use super::stage::encode;
use super::state::Known;
use super::{Redshift, not_staged, range};
use crate::batch::Seq;
use crate::epoch::{DeleteMode, LoadUnit, TableLoad};
use crate::error::Result;
use crate::warehouse::merge::Range;
use crate::warehouse::shape::Shape;
use crate::warehouse::staging::Staging;

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
    pub load: TableLoad,
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
    /// Rows in the file.
    pub rows: u64,
    /// What the file's documents are, where they are staged as such.
    pub documents: Kinds,
    /// The file's manifest.
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
                let staged = stage_round(staging, round, stage, name, &before, floor, &mut uploaded.objects).await;
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
    staging: &dyn Staging,
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
    let staged = encode(&load, form, marked, floor.map(|(seq, _)| seq))?;
    let mut round = Round {
        load,
        stage,
        form,
        layout: String::new(),
        shape,
        marked,
        low: low.map(|(seq, at)| (seq, time(at))),
        range: None,
        rows: staged.rows,
        documents: staged.documents,
        manifest: String::new(),
    };
    if staged.rows == 0 {
        return Ok((shape.rows > 0).then_some(round));
    }
    let (file, manifest) = (format!("{name}.parquet"), format!("{name}.manifest"));
    objects.extend([file.clone(), manifest.clone()]);
    let entry = json!({"entries": [{
        "url": staging.url(&file),
        "mandatory": true,
        "meta": {"content_length": staged.body.len()},
    }]});
    staging.put(&file, staged.body).await?;
    staging.put(&manifest, entry.to_string().into()).await?;
    round.manifest = staging.url(&manifest);
    Ok(Some(round))
}
