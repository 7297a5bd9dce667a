//! `dataflow quarantine`: what was refused, and what becomes of it.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::table_text::{Cell, Paint, columns, number, visible};
use super::{Output, TopologyArgs};
use crate::config::Loaded;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Access, Lake, Log, Payload};
use crate::pipeline::quarantine::{OpenReject, drop_rejects, open_rejects, retry_rejects};

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
    /// Entries by id, as `list` shows them: EPOCH/ROW
    #[arg(value_name = "ID", value_parser = entry_id)]
    pub ids: Vec<(u64, u64)>,
    /// Only of this table
    #[arg(long)]
    pub table: Option<String>,
    /// Only of this rule (`decode`, `contract`, `incomplete`, or a rule's name)
    #[arg(long)]
    pub rule: Option<String>,
}

fn entry_id(text: &str) -> Result<(u64, u64), String> {
    let id = text.split_once('/').and_then(|(epoch, row)| Some((epoch.parse().ok()?, row.parse().ok()?)));
    id.ok_or_else(|| "an id is EPOCH/ROW as `list` shows it, e.g. 17/3".into())
}

impl Selection {
    /// Whether everything is meant.
    pub fn is_everything(&self) -> bool {
        self.ids.is_empty() && self.table.is_none() && self.rule.is_none()
    }

    /// Whether an entry is meant.
    pub fn takes(&self, epoch: u64, row: u64, table: Option<&str>, rule: &str) -> bool {
        (self.ids.is_empty() || self.ids.contains(&(epoch, row)))
            && self.table.as_deref().is_none_or(|wanted| table == Some(wanted))
            && self.rule.as_deref().is_none_or(|wanted| rule == wanted)
    }
}

/// One refused record or row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectLine {
    /// The epoch that refused it.
    pub epoch: u64,
    /// Its row in that epoch's quarantine file.
    pub row: u64,
    /// The table, when it is known.
    pub table: Option<String>,
    /// The rule.
    pub rule: String,
    /// Why, and what a person can do.
    pub reason: String,
    /// What happened to the row at the source.
    pub op: Option<String>,
    /// The key, masked, as JSON text.
    pub key: Option<String>,
    /// The values, masked, as JSON text.
    pub values: Option<String>,
    /// Where it was read.
    pub partition: String,
    /// Its place there.
    pub position: String,
    /// Whether its payload was kept, so that it can be retried.
    pub retry: bool,
}

/// What `list` and `show` print.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RejectList {
    /// The entries.
    pub entries: Vec<RejectLine>,
    /// How many there are beyond these.
    pub more: u64,
}

impl RejectList {
    /// A line per entry.
    pub fn text(&self, paint: Paint) -> String {
        if self.entries.is_empty() {
            return "the quarantine is empty\n".into();
        }
        let rows: Vec<Vec<Cell>> = self.entries.iter().map(RejectLine::row).collect();
        let mut out = columns(paint, &["id", "table", "rule", "op", "key", "retry", "reason"], &rows);
        if self.more > 0 {
            out.push_str(&format!("and {} more; --limit shows them\n", number(self.more)));
        }
        out
    }

    /// Everything about each entry.
    pub fn full_text(&self, paint: Paint) -> String {
        self.entries.iter().map(|entry| entry.full_text(paint)).collect::<Vec<_>>().join("\n")
    }
}

impl RejectLine {
    fn row(&self) -> Vec<Cell> {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        vec![
            format!("{}/{}", self.epoch, self.row).into(),
            or_dash(&self.table).into(),
            Cell::painted(self.rule.as_str(), Paint::yellow),
            or_dash(&self.op).into(),
            or_dash(&self.key).into(),
            if self.retry { "yes" } else { "no" }.into(),
            self.reason.as_str().into(),
        ]
    }

    fn full_text(&self, paint: Paint) -> String {
        let mut out = format!("{}\n", paint.bold(&format!("{}/{}", self.epoch, self.row)));
        let mut line = |name: &str, text: &str| {
            let name = paint.dim(&format!("{name:9}"));
            out.push_str(&format!("  {name} {}\n", visible(text)));
        };
        line("table", self.table.as_deref().unwrap_or("not known"));
        line("rule", &self.rule);
        line("reason", &self.reason);
        line("operation", self.op.as_deref().unwrap_or("not known"));
        line("read at", &format!("{} {}", self.partition, self.position));
        line("key", self.key.as_deref().unwrap_or("not known"));
        line("values", self.values.as_deref().unwrap_or("could not be decoded"));
        line(
            "retry",
            if self.retry { "possible: the payload was kept, encrypted" } else { "not possible: no payload was kept" },
        );
        out
    }
}

/// Does it.
pub async fn run(args: QuarantineArgs, output: Output) -> Result<()> {
    match args.command {
        QuarantineCommand::List { topology, selection, limit, json } => {
            let (.., entries) = entries(&topology, &selection, Access::Read).await?;
            let more = entries.len().saturating_sub(limit) as u64;
            let list = RejectList { entries: entries.iter().take(limit).map(line).collect(), more };
            if json { lines(&list, output) } else { output.print(&list.text(Paint::new(output.terminal))) }
        }
        QuarantineCommand::Show { topology, selection, json } => {
            let (.., entries) = entries(&topology, &selection, Access::Read).await?;
            let list = RejectList { entries: entries.iter().map(line).collect(), more: 0 };
            if json { lines(&list, output) } else { output.print(&list.full_text(Paint::new(output.terminal))) }
        }
        QuarantineCommand::Retry { topology, selection } => {
            let (loaded, lake, log, entries) = entries(&topology, &selection, Access::Write).await?;
            if entries.is_empty() {
                return output.print("nothing to retry");
            }
            let manifest = retry_rejects(&loaded, &lake, &log, &entries).await?;
            let again = manifest.quarantine.as_ref().map_or(0, |file| file.by_table.values().sum::<u64>());
            output.print(&format!(
                "{} read again in epoch {}; {} refused again",
                number(entries.len() as u64),
                manifest.n,
                number(again)
            ))
        }
        QuarantineCommand::Drop { topology, selection, yes } => {
            if !yes {
                return Err(Error::new(ErrorKind::Config, "give up quarantined entries for good")
                    .help("say --yes; `dataflow quarantine list` with the same selection shows which they are"));
            }
            let (_, _, log, entries) = entries(&topology, &selection, Access::Write).await?;
            if entries.is_empty() {
                return output.print("nothing to give up");
            }
            let manifest = drop_rejects(&log, &entries).await?;
            output.print(&format!("{} given up in epoch {}", number(entries.len() as u64), manifest.n))
        }
    }
}

async fn entries(
    topology: &TopologyArgs,
    selection: &Selection,
    access: Access,
) -> Result<(Loaded, Lake, Log, Vec<OpenReject>)> {
    let loaded = topology.load()?;
    let lake = Lake::open(&loaded.topology.lake)?;
    let log = Log::open(lake.clone(), &loaded.topology.name, access).await?;
    let mut entries = open_rejects(&lake, &log).await?;
    entries.retain(|open| {
        let reject = &open.entry.reject;
        selection.takes(open.epoch, open.entry.row, reject.table.as_deref(), &reject.rule)
    });
    Ok((loaded, lake, log, entries))
}

fn line(open: &OpenReject) -> RejectLine {
    let reject = &open.entry.reject;
    RejectLine {
        epoch: open.epoch,
        row: open.entry.row,
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

fn lines(list: &RejectList, output: Output) -> Result<()> {
    list.entries.iter().try_for_each(|entry| output.print_json(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> RejectLine {
        RejectLine {
            epoch: 17,
            row: 3,
            table: Some("orders".into()),
            rule: "positive".into(),
            reason: "amount >= 0 does not hold".into(),
            op: Some("u".into()),
            key: Some("{\"id\":1}".into()),
            values: None,
            partition: "shop:orders/0".into(),
            position: "99".into(),
            retry: false,
        }
    }

    #[test]
    fn entries_are_listed_and_shown() {
        let list = RejectList { entries: vec![entry()], more: 1200 };
        let text = list.text(Paint::plain());
        assert!(text.contains("17/3  orders  positive  u   {\"id\":1}  no     amount >= 0 does not hold"), "{text}");
        assert!(text.ends_with("and 1 200 more; --limit shows them\n"), "{text}");
        assert!(list.full_text(Paint::plain()).contains("  retry     not possible: no payload was kept\n"));
        assert_eq!(RejectList::default().text(Paint::plain()), "the quarantine is empty\n");
    }

    #[test]
    fn a_selection_narrows_by_everything_it_says() {
        let selection = Selection { ids: vec![(17, 3)], table: Some("orders".into()), rule: None };
        assert!(selection.takes(17, 3, Some("orders"), "positive"));
        assert!(!selection.takes(17, 4, Some("orders"), "positive"));
        assert!(!selection.takes(17, 3, None, "positive"));
        assert!(Selection::default().is_everything() && entry_id("17").is_err());
    }
}
