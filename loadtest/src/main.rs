//! The command line: writes the shop's events to files or to Kafka, and the summary that they can be checked against.

mod check;
#[cfg(feature = "kafka")]
mod drop;
mod files;
#[cfg(feature = "kafka")]
mod kafka;
mod pace;
mod tables;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use loadtest::{Bad, Clock, Event, Expected, Options, Shop};

/// Generators of realistic change streams.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Customers, products, orders, order lines and page views as Debezium's PostgreSQL connector reports them.
    Shop(Box<ShopArgs>),
    /// Compares a summary with what `dataflow status --json` says on standard input: generated = applied + superseded +
    /// filtered + quarantined, and the rows of every table.
    Check {
        /// The file that `shop --summary` wrote.
        summary: PathBuf,
    },
    /// Writes a contract file a table, for events without schema blocks, and prints the `tables:` part of a topology.
    Tables {
        /// How many tables.
        #[arg(long, default_value_t = loadtest::TABLE_NAMES.len())]
        tables: usize,
        /// The folder of the contract files, and so of the topology.
        #[arg(long)]
        contracts: PathBuf,
    },
    /// Reads Kafka topics to their end and drops what it reads: the baseline of everything that reads Kafka.
    #[cfg(feature = "kafka")]
    Drop {
        /// Kafka brokers, host:port, comma separated.
        #[arg(long)]
        kafka: String,
        /// How the topics' names begin.
        #[arg(long, default_value = "shop.public.")]
        prefix: String,
    },
}

#[derive(Debug, Args)]
struct ShopArgs {
    /// A folder (one file a table), or a file that ends in .json, .jsonl or .ndjson (all tables mixed).
    #[arg(long, required_unless_present = "kafka")]
    out: Option<PathBuf>,
    /// Kafka brokers, host:port, comma separated (needs the feature `kafka`).
    #[arg(long, conflicts_with = "out")]
    kafka: Option<String>,
    /// Make the Kafka topics with so many partitions; without it the broker decides.
    #[arg(long, requires = "kafka")]
    partitions: Option<i32>,
    /// Row events a second, e.g. 2000 or 2000/s; as fast as possible when absent.
    #[arg(long, value_parser = rate)]
    rate: Option<u64>,
    /// Stop after so many seconds.
    #[arg(long, required_unless_present = "events")]
    seconds: Option<u64>,
    /// Stop after so many row events.
    #[arg(long)]
    events: Option<u64>,
    /// The same seed gives the same rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Every message carries its schema block.
    #[arg(long)]
    schema_block: bool,
    /// The share of bad events, e.g. 0.1%.
    #[arg(long, value_parser = share, default_value = "0%")]
    bad_rows: f64,
    /// Which bad events: negative_amount, wrong_type, broken_json; all when absent.
    #[arg(long, value_parser = bad_kind, value_delimiter = ',')]
    bad_kinds: Vec<Bad>,
    /// How many tables; more than five repeat the five.
    #[arg(long, default_value_t = loadtest::TABLE_NAMES.len())]
    tables: usize,
    /// After so many events the orders get a new column; half-way when absent, never with 0.
    #[arg(long)]
    add_column_after: Option<u64>,
    /// Some updates change the key.
    #[arg(long)]
    moves: bool,
    /// Updates of products leave the long text out, as an unchanged TOAST value.
    #[arg(long)]
    toast: bool,
    /// The share of transactions that are delivered twice, e.g. 1%.
    #[arg(long, value_parser = share, default_value = "0%")]
    redeliver: f64,
    /// Times in the envelope follow from the seed as well, so that every byte does.
    #[arg(long)]
    simulated_clock: bool,
    /// Where to write what the tables must hold in the end.
    #[arg(long)]
    summary: Option<PathBuf>,
}

/// Where messages go.
pub trait Sink {
    /// Takes one message.
    fn send(&mut self, event: Event) -> Result<(), String>;
    /// Makes what was taken visible to readers; waits for it when `last`.
    fn flush(&mut self, last: bool) -> Result<(), String>;
}

fn rate(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches("/s").replace(['_', ','], "");
    match number.parse() {
        Ok(rate) if rate > 0 => Ok(rate),
        _ => Err("write a whole number of events a second, e.g. 2000/s".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 =
        text.strip_suffix('%').and_then(|number| number.trim().parse().ok()).ok_or("write a percentage, e.g. 0.1%")?;
    if (0.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err("a share is 0% to 100%".into()) }
}

fn bad_kind(text: &str) -> Result<Bad, String> {
    Bad::ALL
        .into_iter()
        .find(|kind| kind.name() == text)
        .ok_or_else(|| format!("unknown kind; known are {}", Bad::ALL.map(Bad::name).join(", ")))
}

impl ShopArgs {
    fn options(&self) -> Options {
        let planned = self.events.or_else(|| Some(self.rate? * self.seconds?));
        let half = planned.map(|events| events / 2);
        Options {
            tables: self.tables,
            schema_block: self.schema_block,
            bad_rows: self.bad_rows,
            bad_kinds: if self.bad_kinds.is_empty() { Bad::ALL.to_vec() } else { self.bad_kinds.clone() },
            add_column_after: self.add_column_after.or(half).filter(|&after| after > 0),
            snapshot: true,
            moves: self.moves,
            toast: self.toast,
            partial_moves: self.moves && self.toast && self.kafka.is_some(),
            redeliver: self.redeliver,
            // A file line is a value; there is none in a tombstone.
            tombstones: self.kafka.is_some(),
            clock: if self.simulated_clock {
                Clock::Simulated { events_per_second: self.rate.unwrap_or(2_000) }
            } else {
                Clock::Wall
            },
        }
    }

    fn sink(&self) -> Result<Box<dyn Sink>, String> {
        match (&self.out, &self.kafka) {
            (Some(path), _) => Ok(Box::new(files::Files::create(path)?)),
            #[cfg(feature = "kafka")]
            (None, Some(brokers)) => Ok(Box::new(kafka::Kafka::connect(brokers, self.partitions)?)),
            #[cfg(not(feature = "kafka"))]
            (None, Some(_)) => {
                Err("this loadtest was built without Kafka: cargo build -p loadtest --features kafka".into())
            }
            (None, None) => Err("say where the events go: --out or --kafka".into()),
        }
    }
}

fn run(args: &ShopArgs) -> Result<(), String> {
    let mut shop = Shop::new(args.seed, args.options());
    let mut sink = args.sink()?;
    let mut pace = pace::Pace::start(args.rate, args.seconds, args.events)?;
    while let Some(due) = pace.due() {
        while shop.generated() < due {
            sink.send(shop.next_event())?;
        }
        sink.flush(false)?;
    }
    for event in shop.drain() {
        sink.send(event)?;
    }
    sink.flush(true)?;
    let expected = shop.expected();
    eprintln!(
        "loadtest: {} row events ({} of them bad) in {} messages, {:.1} s",
        expected.generated,
        expected.bad,
        expected.messages,
        pace.elapsed().as_secs_f64()
    );
    args.summary.as_deref().map_or(Ok(()), |path| write_summary(path, &expected))
}

/// A reader sees the whole summary or none.
fn write_summary(path: &Path, expected: &Expected) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("write the summary {}: {error}", path.display());
    let text = serde_json::to_string_pretty(expected).map_err(|e| failed(&e))?;
    let part = path.with_extension("part");
    std::fs::write(&part, text + "\n").map_err(|e| failed(&e))?;
    std::fs::rename(&part, path).map_err(|e| failed(&e))
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Shop(args) => run(&args),
        Command::Check { summary } => check::run(&summary),
        Command::Tables { tables, contracts } => tables::run(tables, &contracts),
        #[cfg(feature = "kafka")]
        Command::Drop { kafka, prefix } => drop::run(&kafka, &prefix),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("loadtest: {message}");
            ExitCode::FAILURE
        }
    }
}
