//! What a load stages before its transaction begins: nobody waits for an upload while the group is locked.

use serde_json::json;
use ulid::Ulid;

use super::sql::{StageKind, time};
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
    pub kind: StageKind,
    pub shape: Shape,
    /// Tombstones or refused versions matter.
    pub marked: bool,
    /// The floor, with its time as a literal, when a row is older than it.
    pub low: Option<(Seq, String)>,
    /// The keys between which the target must be looked at.
    pub range: Option<Range>,
    /// Rows in the file.
    pub rows: u64,
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
            for (part, round) in std::iter::once(first).chain(load.later_rounds()).enumerate() {
                let stage = format!("_dataflow_stage_{number}_{part}");
                let name = format!("{}-{number}-{part}", uploaded.name);
                let range = range::of(&round, &layout);
                let staged = stage_round(staging, round, stage, name, &before, floor, &mut uploaded.objects).await;
                let staged = staged.map(|staged| staged.map(|round| Round { range, ..round }));
                match staged {
                    Ok(staged) => work.rounds.extend(staged),
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
    let low = floor.filter(|(floor, _)| shape.oldest.is_some_and(|oldest| oldest < *floor));
    let marked = shape.refused || load.keep_tombstones || before.marked;
    let plain = shape.plain() && !marked && low.is_none() && load.mode != DeleteMode::History;
    let kind = match (load.contract.output.key.is_empty(), plain) {
        (true, _) => StageKind::Append,
        (false, true) => StageKind::Plain,
        (false, false) => StageKind::Merge,
    };
    let staged = encode(&load, kind, marked, floor.map(|(seq, _)| seq))?;
    let mut round = Round {
        load,
        stage,
        kind,
        shape,
        marked,
        low: low.map(|(seq, at)| (seq, time(at))),
        range: None,
        rows: staged.rows,
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
