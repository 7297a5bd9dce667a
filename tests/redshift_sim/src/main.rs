//! The emulator as a program: for psql, for a look around, for figures. On SIGUSR1 it prints what it has counted.

use std::path::{Path, PathBuf};

use clap::Parser;
use redshift_sim::{Isolation, Options, S3, Sim, Tls};
use tokio::signal::unix::{SignalKind, signal};

/// Emulates Amazon Redshift in front of a PostgreSQL.
#[derive(Parser)]
struct Arguments {
    /// A database that becomes the emulator's own: postgres://user@host:port/database
    #[arg(long, env = "REDSHIFT_SIM_POSTGRES")]
    postgres: String,
    /// The port on 127.0.0.1
    #[arg(long, default_value_t = 5439)]
    port: u16,
    /// The S3 endpoint that COPY reads from
    #[arg(long, default_value = "http://127.0.0.1:9000")]
    s3_endpoint: String,
    /// The S3 access key's id
    #[arg(long, env = "AWS_ACCESS_KEY_ID", default_value = "")]
    access_key_id: String,
    /// The S3 access key's secret
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", default_value = "", hide_env_values = true)]
    secret_access_key: String,
    /// Certificate chain, PEM
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// Private key, PEM
    #[arg(long)]
    key: Option<PathBuf>,
    /// Snapshot isolation instead of serializable
    #[arg(long)]
    snapshot_isolation: bool,
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[tokio::main]
async fn main() -> Result<(), String> {
    let arguments = Arguments::parse();
    let s3 = S3 {
        endpoint: arguments.s3_endpoint,
        region: "eu-west-3".into(),
        access_key_id: arguments.access_key_id,
        secret_access_key: arguments.secret_access_key,
    };
    let tls = match (arguments.certificate, arguments.key) {
        (Some(certificate), Some(key)) => Some(Tls { certificate: read(&certificate)?, key: read(&key)? }),
        _ => None,
    };
    let isolation = if arguments.snapshot_isolation { Isolation::Snapshot } else { Isolation::Serializable };
    let sim =
        Sim::start(Options { port: arguments.port, s3, tls, isolation, ..Options::new(arguments.postgres) }).await?;
    println!("{} (credentials: {})", sim.url(), sim.credentials_endpoint());
    let mut asked = signal(SignalKind::user_defined1()).map_err(|e| e.to_string())?;
    loop {
        tokio::select! {
            ended = tokio::signal::ctrl_c() => {
                ended.map_err(|e| e.to_string())?;
                sim.shutdown().await;
                return Ok(());
            }
            _ = asked.recv() => println!("{}", counted(&sim)),
        }
    }
}

fn counted(sim: &Sim) -> String {
    let counters = sim.counters();
    let statements: u64 = counters.statements.values().sum();
    let (commits, copied, bytes) = (counters.commits, counters.copied_files, counters.copied_bytes);
    format!("counted: statements {statements} commits {commits} copied_files {copied} copied_bytes {bytes}")
}
