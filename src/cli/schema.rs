//! `dataflow schema`: JSON Schema for editors.

use clap::{Args, ValueEnum};

use super::Output;
use crate::config;
use crate::error::Result;

/// Arguments of `schema`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dataflow schema > schemas/topology.schema.json
  dataflow schema contract > schemas/contract.schema.json

Then put this into the first line of a file, and editors complete and check it:
  # yaml-language-server: $schema=../schemas/topology.schema.json")]
pub(super) struct SchemaArgs {
    /// Of which file
    #[arg(value_enum, default_value_t = Which::Topology)]
    which: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Topologies
    Topology,
    /// Contract files
    Contract,
}

pub(super) fn run(args: SchemaArgs, output: Output) -> Result<()> {
    let schema = match args.which {
        Which::Topology => config::topology_schema(),
        Which::Contract => config::contract_schema(),
    };
    output.print(&format!("{schema:#}"))
}
