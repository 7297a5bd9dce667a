//! `dataflow quarantine`: what was refused, and what becomes of it.

use clap::{Args, Subcommand};

use super::quarantine_text::{EntryId, RejectLine, RejectList};
use super::table::known_table;
use super::table_text::{Paint, number};
use super::{Output, TopologyArgs};
use crate::batch::Seq;
use crate::config::Loaded;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Access, Lake, Log, Payload};
use crate::pipeline::quarantine::{OpenReject, drop_rejects, open_rejects, retry_rejects};
use crate::warehouse::{self, OpenIncomplete};

/// Arguments of `quarantine`.
#[derive(Debug, Args)]
pub struct QuarantineArgs {
    #[command(subcommand)]
    pub command: QuarantineCommand,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum QuarantineCommand {
    /// List what is open
    #[command(after_help = "Example:\n  dataflow quarantine list topologies/shop.yaml --table orders")]
    List {
        #[command(flatten)]
        topology: TopologyArgs,
        #[command(flatten)]
        selection: Selection,
        /// The most entries to list
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// One JSON object per entry
        #[arg(long)]
        json: bool,
    },
    /// Show entries in full
    #[command(after_help = "Example:\n  dataflow quarantine show topologies/shop.yaml 17/3")]
    Show {
        #[command(flatten)]
        topology: TopologyArgs,
        #[command(flatten)]
        selection: Selection,
        /// One JSON object per entry
        #[arg(long)]
        json: bool,
    },
    /// Bring entries in again, with today's rules and their old order
    #[command(after_help = "Examples:
  dataflow quarantine retry topologies/shop.yaml 17/3 17/4
  dataflow quarantine retry topologies/shop.yaml --table orders --rule positive_amount

Needs `lake.quarantine.key`: without it no payload was kept.")]
    Retry {
        #[command(flatten)]
        topology: TopologyArgs,
        #[command(flatten)]
        selection: Selection,
    },
    /// Give entries up: they stay in the account as rejected
    #[command(after_help = "Example:\n  dataflow quarantine drop topologies/shop.yaml --rule positive_amount --yes")]
    Drop {
        #[command(flatten)]
        topology: TopologyArgs,
        #[command(flatten)]
        selection: Selection,
        /// Really
        #[arg(long)]
        yes: bool,
    },
}

/// Which entries.
#[derive(Debug, Clone, Default, Args)]
pub struct Selection {
    /// Entries by id, as `list` shows them: EPOCH/ROW, or wN for a partial row that the warehouse holds back
    #[arg(value_name = "ID")]
    pub ids: Vec<EntryId>,
    /// Only of this table
    #[arg(long)]
    pub table: Option<String>,
    /// Only of this rule (`decode`, `contract`, `incomplete`, or a rule's name)
    #[arg(long)]
    pub rule: Option<String>,
}

impl Selection {
    /// Whether everything is meant.
    pub fn is_everything(&self) -> bool {
        self.ids.is_empty() && self.table.is_none() && self.rule.is_none()
    }

    /// Whether an entry is meant.
    pub fn takes(&self, id: EntryId, table: Option<&str>, rule: &str) -> bool {
        (self.ids.is_empty() || self.ids.contains(&id))
            && self.table.as_deref().is_none_or(|wanted| table == Some(wanted))
            && self.rule.as_deref().is_none_or(|wanted| rule == wanted)
    }

    /// Whether entries that stand in the log may be meant.
    fn may_take_logged(&self) -> bool {
        self.ids.is_empty() || self.ids.iter().any(|id| matches!(id, EntryId::Logged { .. }))
    }

    /// Whether rows that the warehouse holds back may be meant.
    fn may_take_held_back(&self) -> bool {
        let by_id = self.ids.is_empty() || self.ids.iter().any(|id| matches!(id, EntryId::HeldBack(_)));
        by_id && self.rule.as_deref().is_none_or(|rule| rule == INCOMPLETE)
    }
}

/// The rule's name for a partial row without a base.
const INCOMPLETE: &str = "incomplete";

/// What is open and meant.
struct Found {
    loaded: Loaded,
    lake: Lake,
    /// `None`: there is no log yet.
    log: Option<Log>,
    logged: Vec<OpenReject>,
    held_back: Vec<OpenIncomplete>,
    /// Why the warehouse could not be asked.
    unasked: Option<Error>,
}

/// Does it.
pub async fn run(args: QuarantineArgs, output: Output) -> Result<()> {
    match args.command {
        QuarantineCommand::List { topology, selection, limit, json } => {
            let found = Found::look(&topology, &selection, Access::Read).await?;
            show(found, &selection, limit, json, output, |list| list.text(Paint::new(output.terminal)))
        }
        QuarantineCommand::Show { topology, selection, json } => {
            let found = Found::look(&topology, &selection, Access::Read).await?;
            found.all_there(&selection, "show")?;
            show(found, &selection, usize::MAX, json, output, |list| list.full_text(Paint::new(output.terminal)))
        }
        QuarantineCommand::Retry { topology, selection } => retry(&topology, &selection, output).await,
        QuarantineCommand::Drop { topology, selection, yes } => drop_found(&topology, &selection, yes, output).await,
    }
}

/// Prints what was found, and fails afterwards when the warehouse could not say its part.
fn show(
    found: Found,
    selection: &Selection,
    limit: usize,
    json: bool,
    output: Output,
    text: impl FnOnce(&RejectList) -> String,
) -> Result<()> {
    let lines = found.logged.iter().map(logged_line).chain(found.held_back.iter().map(held_back_line));
    let all = found.logged.len() + found.held_back.len();
    let list = RejectList {
        entries: lines.take(limit).collect(),
        more: all.saturating_sub(limit) as u64,
        narrowed: !selection.is_everything(),
        no_log_in: found.log.is_none().then(|| found.lake.url().to_owned()),
    };
    if json {
        list.entries.iter().try_for_each(|entry| output.print_json(entry))?;
    } else if !(list.entries.is_empty() && found.unasked.is_some()) {
        output.print(&text(&list))?;
    }
    match found.unasked {
        Some(error) => {
            Err(error.doing("list the partial rows that the warehouse holds back (what the log has is above)"))
        }
        None => Ok(()),
    }
}

async fn retry(topology: &TopologyArgs, selection: &Selection, output: Output) -> Result<()> {
    let mut found = Found::look(topology, selection, Access::Write).await?;
    found.all_there(selection, "retry")?;
    if let Some(error) = found.unasked.take().filter(|_| found.logged.is_empty()) {
        return Err(error.doing("retry quarantined entries"));
    }
    let by_id = selection.ids.iter().any(|id| matches!(id, EntryId::HeldBack(_)));
    if let Some(first) = found.held_back.first().filter(|_| by_id || found.logged.is_empty()) {
        return Err(no_retry(first));
    }
    let Some(log) = found.log.as_ref().filter(|_| !found.logged.is_empty()) else {
        return output.print(&found.nothing("retry"));
    };
    let manifest = retry_rejects(&found.loaded, &found.lake, log, &found.logged).await?;
    let again = manifest.quarantine.as_ref().map_or(0, |file| file.by_table.values().sum::<u64>());
    let read = number(found.logged.len() as u64);
    output.print(&format!("{read} read again in epoch {}; {} refused again", manifest.n, number(again)))?;
    match found.held_back.len() as u64 {
        0 => Ok(()),
        left => output.print(&format!(
            "{} partial rows stay: they have no payload, and the next full image of their key heals them",
            number(left)
        )),
    }
}

/// Why a partial row that the warehouse holds back cannot be retried, and what to do instead.
fn no_retry(held: &OpenIncomplete) -> Error {
    let (id, row) = (EntryId::HeldBack(held.id), &held.row);
    let what = format!(
        "retry {id}: the change of key {} in table {} is not in quarantine but was loaded without its columns {}, so there \
         is no payload to read again",
        row.key,
        row.table,
        row.missing.join(", ")
    );
    Error::new(ErrorKind::Config, what).help(format!(
        "the next full image of this key heals it; to have one now, see `dataflow table resync … {}`; to give it up: \
         `dataflow quarantine drop … {id} --yes`",
        row.table
    ))
}

async fn drop_found(topology: &TopologyArgs, selection: &Selection, yes: bool, output: Output) -> Result<()> {
    if !yes {
        return Err(Error::new(ErrorKind::Config, "give up quarantined entries for good")
            .help("say --yes; `dataflow quarantine list` with the same selection shows which they are"));
    }
    let mut found = Found::look(topology, selection, Access::Write).await?;
    if let Some(error) = found.unasked.take() {
        return Err(error.doing("give up quarantined entries (none was)"));
    }
    found.all_there(selection, "give up")?;
    if found.logged.is_empty() && found.held_back.is_empty() {
        return output.print(&found.nothing("give up"));
    }
    if let Some(log) = found.log.filter(|_| !found.logged.is_empty()) {
        let manifest = drop_rejects(&log, &found.logged).await?;
        output.print(&format!("{} given up in epoch {}", number(found.logged.len() as u64), manifest.n))?;
    }
    if !found.held_back.is_empty() {
        let config = &found.loaded.topology;
        let ids: Vec<i64> = found.held_back.iter().map(|held| held.id).collect();
        let dropped = match warehouse::find(&config.warehouse, &config.name).await? {
            Some(warehouse) => warehouse.drop_incompletes(&ids).await?,
            None => 0,
        };
        output.print(&format!(
            "{} partial rows without a base given up in the warehouse; the account goes on counting them as quarantined",
            number(dropped)
        ))?;
    }
    Ok(())
}

impl Found {
    async fn look(topology: &TopologyArgs, selection: &Selection, access: Access) -> Result<Self> {
        let loaded = topology.load()?;
        let lake = Lake::open(&loaded.topology.lake)?;
        // Looking at a lake that nobody has written to must not make it.
        let log = match lake.has_log().await? {
            true => Some(Log::open(lake.clone(), &loaded.topology.name, access).await?),
            false => None,
        };
        let mut logged = match &log {
            Some(log) if selection.may_take_logged() => open_rejects(&lake, log).await?,
            _ => Vec::new(),
        };
        logged.retain(|open| {
            let reject = &open.entry.reject;
            selection.takes(logged_id(open), reject.table.as_deref(), &reject.rule)
        });
        let (mut held_back, mut unasked) = (Vec::new(), None);
        if selection.may_take_held_back() {
            match held_back_rows(&loaded).await {
                Ok(rows) => held_back = rows,
                Err(error) => unasked = Some(error),
            }
        }
        held_back.retain(|held| selection.takes(EntryId::HeldBack(held.id), Some(&held.row.table), INCOMPLETE));
        if let Some(table) = selection.table.as_ref().filter(|_| logged.is_empty() && held_back.is_empty()) {
            // A table that has left the topology may still have entries; one that never was there is a mistake.
            known_table(&loaded, table)?;
        }
        Ok(Self { loaded, lake, log, logged, held_back, unasked })
    }

    fn nothing(&self, to: &str) -> String {
        let why =
            if self.log.is_none() { format!(": there is no log in {} yet", self.lake.url()) } else { String::new() };
        format!("nothing to {to}{why}")
    }

    /// Every id that was named must be open.
    fn all_there(&self, selection: &Selection, doing: &str) -> Result<()> {
        let logged = self.logged.iter().map(logged_id);
        let found: Vec<EntryId> = logged.chain(self.held_back.iter().map(|held| EntryId::HeldBack(held.id))).collect();
        let unasked = |id: &EntryId| self.unasked.is_some() && matches!(id, EntryId::HeldBack(_));
        match selection.ids.iter().find(|id| !found.contains(id) && !unasked(id)) {
            None => Ok(()),
            Some(id) => Err(Error::new(ErrorKind::Config, format!("{doing} {id}: no such entry is open"))
                .help("it may have been brought in, given up, healed or expired: `dataflow quarantine list` shows what is open")),
        }
    }
}

async fn held_back_rows(loaded: &Loaded) -> Result<Vec<OpenIncomplete>> {
    let topology = &loaded.topology;
    match warehouse::find(&topology.warehouse, &topology.name).await? {
        Some(warehouse) => warehouse.open_incompletes().await,
        None => Ok(Vec::new()),
    }
}

fn logged_id(open: &OpenReject) -> EntryId {
    EntryId::Logged { epoch: open.epoch, row: open.entry.row }
}

fn logged_line(open: &OpenReject) -> RejectLine {
    let reject = &open.entry.reject;
    RejectLine {
        id: logged_id(open),
        epoch: open.epoch,
        row: Some(open.entry.row),
        table: reject.table.clone(),
        rule: reject.rule.clone(),
        reason: reject.reason.clone(),
        op: reject.op.map(|op| op.letter().to_owned()),
        key: reject.key.clone(),
        values: reject.values.clone(),
        partition: reject.partition.to_string(),
        position: reject.seq.major.to_string(),
        retry: matches!(open.entry.payload, Payload::Open { .. }),
    }
}

fn held_back_line(held: &OpenIncomplete) -> RejectLine {
    let row = &held.row;
    let columns = row.missing.join(", ");
    RejectLine {
        id: EntryId::HeldBack(held.id),
        epoch: held.epoch,
        row: None,
        table: Some(row.table.clone()),
        rule: INCOMPLETE.to_owned(),
        reason: format!(
            "the source left out {columns} as unchanged, and the warehouse has no row of this key to take them from; the next \
             full image of the key heals it (REPLICA IDENTITY FULL gives one with every change), or see `dataflow table \
             resync`"
        ),
        op: None,
        key: Some(row.key.clone()),
        values: None,
        partition: row.partition.clone(),
        position: Seq::parse(&row.seq).map_or_else(|| row.seq.clone(), |seq| seq.major.to_string()),
        retry: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_narrows_by_everything_it_says() {
        let (logged, held_back) = (EntryId::Logged { epoch: 17, row: 3 }, EntryId::HeldBack(3));
        let selection = Selection { ids: vec![logged], table: Some("orders".into()), rule: None };
        assert!(selection.takes(logged, Some("orders"), "positive"));
        assert!(!selection.takes(EntryId::Logged { epoch: 17, row: 4 }, Some("orders"), "positive"));
        assert!(!selection.takes(logged, None, "positive"));
        assert!(selection.may_take_logged() && !selection.may_take_held_back());
        let selection = Selection { ids: vec![held_back], ..Selection::default() };
        assert!(!selection.may_take_logged() && selection.may_take_held_back());
        let selection = Selection { rule: Some("positive".into()), ..Selection::default() };
        assert!(!selection.may_take_held_back());
        assert!(Selection::default().is_everything());
    }
}
