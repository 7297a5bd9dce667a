//! `dataflow run`: keeps the warehouse fresh until told to stop.

use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Live, LiveForm, Output, TopologyArgs, check};
use crate::admin;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{self, Options};
use crate::telemetry::Status;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dataflow run topologies/shop.yaml
  dataflow run topologies/shop.yaml --until-caught-up --set epoch.every=5s
  dataflow run topologies/shop.yaml --role ingest --shard 2/4

SIGTERM or Ctrl-C: seal, commit, apply, release, exit 0. A second one stops at once; nothing is lost.")]
pub struct RunArgs {
    #[command(flatten)]
    pub topology: TopologyArgs,
    /// Stop when everything that was there at the beginning is in the warehouse
    #[arg(long)]
    pub until_caught_up: bool,
    /// Which half runs here
    #[arg(long, value_enum, default_value_t = Role::All)]
    pub role: Role,
    /// Which part of the sources without consumer groups is read here, e.g. `2/4`
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub shard: Shard,
    /// Show the live table even when no terminal is there (then as JSON lines)
    #[arg(long, conflicts_with = "quiet")]
    pub live: bool,
    /// Show no live table
    #[arg(long)]
    pub quiet: bool,
}

/// Which half of the work a process does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Read sources, write the lake
    Ingest,
    /// Read the lake, write the warehouse
    Load,
    /// Both
    #[default]
    All,
}

/// `i/n`: the i-th of n processes, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 1.
    pub index: u32,
    /// Of how many.
    pub count: u32,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, count)) if index >= 1 && index <= count => Ok(Self { index, count }),
            _ => Err("write i/n with i from 1 to n, e.g. 2/4".into()),
        }
    }
}

impl RunArgs {
    /// How the live view looks here; `None` for none. It is painted on standard error, so that is what must be a terminal.
    pub fn live_form(&self) -> Option<LiveForm> {
        self.live_form_at(std::io::stderr().is_terminal())
    }

    fn live_form_at(&self, terminal: bool) -> Option<LiveForm> {
        match (self.quiet, terminal, self.live) {
            (true, ..) | (_, false, false) => None,
            (_, true, _) => Some(LiveForm::Terminal),
            (_, false, true) => Some(LiveForm::JsonLines),
        }
    }
}

/// How old a table with something to load may be before it counts as late: the promise that is made to its readers.
const LATE_AFTER_SECONDS: u64 = 300;

/// Runs the pipeline, the status page and the live view beside it, until the pipeline ends.
pub async fn run(args: RunArgs, _output: Output) -> Result<()> {
    // First of all: from now on a request to stop is an orderly one.
    let terminate = signal(SignalKind::terminate())
        .map_err(|error| Error::new(ErrorKind::Internal, "catch SIGTERM").because(error))?;
    let loaded = args.topology.load()?;
    check::operators(&loaded)?;
    let status = Arc::new(Status::new(&loaded.topology.name, LATE_AFTER_SECONDS));
    let metrics = admin::install_metrics()?;
    let bound = admin::bind(&loaded.topology.admin.listen).await?;
    let page = format!("http://{}/", bound.addr());
    tracing::info!(page, topology = loaded.topology.name, "starting");
    let live = args.live_form().map(|form| Live::new(form, Some(page)));
    let options = Options {
        role: args.role.into(),
        until_caught_up: args.until_caught_up,
        shard: (args.shard.index, args.shard.count),
    };
    let (asked, ended) = (CancellationToken::new(), CancellationToken::new());
    let pipeline = async {
        let outcome = pipeline::run(&loaded, &options, Arc::clone(&status), asked.clone()).await;
        ended.cancel();
        outcome
    };
    let (outcome, served, (), ()) = tokio::join!(
        pipeline,
        bound.serve(Arc::clone(&status), metrics, ended.clone()),
        show(live, &status, &ended),
        obey_signals(terminate, &asked, &ended),
    );
    outcome.and(served)
}

async fn show(live: Option<Live>, status: &Status, ended: &CancellationToken) {
    let Some(live) = live else { return };
    let mut ticks = tokio::time::interval(live.interval());
    loop {
        tokio::select! {
            () = ended.cancelled() => break,
            _ = ticks.tick() => live.draw(&status.snapshot()),
        }
    }
    live.finish(&status.snapshot());
}

/// The first SIGTERM or Ctrl-C asks for an orderly stop; the second ends the process at once. Nothing is lost by that:
/// what is not committed is read again.
pub(super) async fn obey_signals(mut terminate: Signal, asked: &CancellationToken, ended: &CancellationToken) {
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        if asked.is_cancelled() {
            tracing::warn!("stopping at once; what is not committed is read again at the next start");
            std::process::exit(130);
        }
        tracing::info!("stopping: seal, commit, apply, release; once more stops at once");
        asked.cancel();
    }
}

impl From<Role> for pipeline::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Ingest => Self::Ingest,
            Role::Load => Self::Load,
            Role::All => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        run: RunArgs,
    }

    #[test]
    fn the_live_view_follows_the_terminal_and_the_flags() {
        let form = |flags: &[&str], terminal| {
            let words = ["run", "t.yaml"].into_iter().chain(flags.iter().copied());
            Arguments::parse_from(words).run.live_form_at(terminal)
        };
        assert_eq!(form(&[], true), Some(LiveForm::Terminal));
        assert_eq!(form(&[], false), None);
        assert_eq!(form(&["--live"], false), Some(LiveForm::JsonLines));
        assert_eq!(form(&["--quiet"], true), None);
        assert!(Arguments::try_parse_from(["run", "t.yaml", "--live", "--quiet"]).is_err());
    }

    #[test]
    fn shards_count_from_one() {
        assert_eq!("2/4".parse(), Ok(Shard { index: 2, count: 4 }));
        for wrong in ["0/4", "5/4", "2", "a/b", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
