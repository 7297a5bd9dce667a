//! `dataflow run`: keeps the warehouse fresh until told to stop.

use std::io::IsTerminal;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::{LiveForm, Output, TopologyArgs};
use crate::error::{Error, ErrorKind, Result};

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

/// Runs the pipeline.
pub async fn run(args: RunArgs, _output: Output) -> Result<()> {
    let _loaded = args.topology.load()?;
    let _live = args.live_form();
    Err(Error::new(ErrorKind::Internal, "`run` has no pipeline in this build"))
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
