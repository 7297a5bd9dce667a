//! The process: arguments, logging, exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use dataflow::cli::{self, Cli};
use dataflow::error::{Error, ErrorKind};
use dataflow::{failpoint, telemetry};

/// Arrow buffers are large and short-lived. Draining a backlog of 20 tables, this allocator stands at a quarter of what
/// mimalloc keeps and at half of the system's.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    failpoint::setup();
    // A mistake in the arguments ends the process here, with exit code 2.
    let arguments = Cli::parse();
    telemetry::init_log(arguments.log.map(Into::into));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime
        .map_err(|error| Error::new(ErrorKind::Internal, "start the runtime").because(error))
        .and_then(|runtime| runtime.block_on(cli::run(arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn print(error: &Error) {
    let text = error.to_string();
    // Mistakes in files begin with their place, and say `error:` themselves.
    let lead = match (error.kind(), std::io::stderr().is_terminal()) {
        (ErrorKind::Config, _) if text.contains("error:") => "",
        (_, true) => "\x1b[1;31merror:\x1b[0m ",
        (_, false) => "error: ",
    };
    let _reader_gone = writeln!(std::io::stderr().lock(), "{lead}{text}");
}
