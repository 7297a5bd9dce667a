//! A strict emulator of Amazon Redshift for tests: it speaks the PostgreSQL protocol as Redshift does, in front of a real
//! PostgreSQL that does the work.
//!
//! It translates what Redshift has and PostgreSQL lacks, refuses what PostgreSQL would take and Redshift does not, loads
//! Parquet from S3 by Redshift's rules, and breaks when asked. It proves SQL, order, retries and idempotence. It proves
//! nothing about speed, queues, distribution, sorting, vacuum, permissions or IAM.
//!
//! | module | holds |
//! |---|---|
//! | `startup`, `session` | the protocol: a client is let in, and its statements run in order, simple or extended |
//! | `lex`, `sql` | a statement of Redshift's becomes one of PostgreSQL's, or a refusal |
//! | `copy` | COPY: manifest, Parquet, types, lengths; all rows or none |
//! | `conflict` | serializability by tables: error 1023 |
//! | `fault` | what goes wrong because a test asks, and what is counted |
//! | `credentials` | an endpoint that lends passwords as the AWS APIs do |
//! | `data_api` | the Redshift Data API in front of the same sessions |
//! | `signature` | how requests to AWS are signed |
//! | `names` | names that are longer than PostgreSQL's |
//! | `catalog.sql` | types, functions, views and rules inside the database |
//!
//! A refusal that is no rule of Redshift's but a limit of the emulator says `redshift-sim does not emulate …`.
//!
//! ```no_run
//! # async fn example() -> Result<(), String> {
//! use redshift_sim::{Fault, Kind, Options, Rule, S3, Sim};
//! let options = Options { s3: S3 { endpoint: "http://127.0.0.1:9000".into(), ..S3::default() }, ..Options::new("postgres://postgres@127.0.0.1:5432/test_1") };
//! let sim = Sim::start(options).await?;
//! println!("{}", sim.url());
//! sim.fail(Rule::new(Fault::Serializable).on(Kind::Commit).every(3));
//! println!("{} commits", sim.counters().commits);
//! sim.shutdown().await;
//! # Ok(()) }
//! ```

mod backend;
mod conflict;
mod copy;
mod credentials;
mod data_api;
mod fault;
mod lex;
mod names;
mod refusal;
mod server;
mod session;
mod signature;
mod sql;
mod startup;
mod tls;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use copy::S3;
pub use data_api::{ApiFault, ApiRule};
pub use fault::{Counters, Fault, Kind, Met, Rule};
pub use tls::Tls;

use server::Shared;

/// How concurrent transactions are kept apart: <https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// What older clusters have, and the harder of the two: error 1023 by tables.
    #[default]
    Serializable,
    /// What new ones have: only writes to the same rows collide.
    Snapshot,
}

impl Isolation {
    fn name(self) -> &'static str {
        match self {
            Self::Serializable => "Serializable",
            Self::Snapshot => "Snapshot Isolation",
        }
    }
}

/// What an emulator is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// `postgres://user@host:port/database`: a database that belongs to the emulator, and a superuser without a password.
    pub postgres_url: String,
    /// The port on 127.0.0.1; 0 for any.
    pub port: u16,
    /// The database's name in Redshift.
    pub database: String,
    /// Users and their passwords.
    pub users: Vec<(String, String)>,
    /// Where COPY finds S3, and the keys of its roles.
    pub s3: S3,
    /// The roles that COPY may name; the first is the default one.
    pub iam_roles: Vec<String>,
    /// Certificate and key; without them no client gets TLS.
    pub tls: Option<Tls>,
    /// Clients without TLS are refused.
    pub require_tls: bool,
    /// Serializable or snapshot.
    pub isolation: Isolation,
    /// Whether the database calls itself one that does not tell upper from lower case.
    pub case_insensitive: bool,
    /// No tables of a provisioned cluster (`stl_…`), and credentials by the serverless API.
    pub serverless: bool,
    /// Whether COPY reads Parquet that is packed with zstd, which no page promises.
    pub zstd_parquet: bool,
    /// Whether COPY takes a Parquet column that is marked as JSON for plain text, in a cluster that has opted in to long
    /// strings: every document becomes one string, and nobody says so. No page excludes it.
    pub json_as_text: bool,
    /// The keys that requests for credentials must be signed with: id and secret.
    pub aws_keys: (String, String),
    /// The longest that a login is lent, whatever is asked for.
    pub lends: Duration,
}

impl Options {
    /// The usual: database `dev`, user `loader`, password `Secret-1`, one role.
    pub fn new(postgres_url: impl Into<String>) -> Self {
        Self {
            postgres_url: postgres_url.into(),
            port: 0,
            database: "dev".into(),
            users: vec![("loader".into(), "Secret-1".into())],
            s3: S3::default(),
            iam_roles: vec!["arn:aws:iam::123456789012:role/dataflow-copy".into()],
            tls: None,
            require_tls: false,
            isolation: Isolation::default(),
            case_insensitive: false,
            serverless: false,
            zstd_parquet: false,
            json_as_text: false,
            aws_keys: ("AKIATESTTESTTESTTEST".into(), "secret-of-the-tests".into()),
            lends: Duration::from_secs(3600),
        }
    }
}

/// A running emulator; it ends when it is dropped.
pub struct Sim {
    shared: Arc<Shared>,
    address: SocketAddr,
    credentials: SocketAddr,
    data_api: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Sim {
    /// Starts one; puts Redshift's catalog into the database unless it is there.
    pub async fn start(options: Options) -> Result<Self, String> {
        let port = options.port;
        let shared = Arc::new(Shared::new(options).await?);
        let listener = listen(port).await?;
        let (address, http) = (local(&listener)?, listen(0).await?);
        let credentials = local(&http)?;
        let api = listen(0).await?;
        let data_api = local(&api)?;
        let tasks = vec![
            tokio::spawn(server::serve(listener, Arc::clone(&shared))),
            tokio::spawn(credentials::serve(http, Arc::clone(&shared))),
            tokio::spawn(data_api::serve(api, Arc::clone(&shared))),
        ];
        Ok(Self { shared, address, credentials, data_api, tasks })
    }

    /// `postgres://user:password@127.0.0.1:port/database` of the first user.
    pub fn url(&self) -> String {
        let (user, password) = self.shared.options.users.first().cloned().unwrap_or_default();
        format!("postgres://{user}:{password}@{}/{}", self.address, self.shared.options.database)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `127.0.0.1`.
    pub fn host(&self) -> String {
        self.address.ip().to_string()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The endpoint that lends passwords: `GetClusterCredentialsWithIAM` and the serverless `GetCredentials`.
    pub fn credentials_endpoint(&self) -> String {
        format!("http://{}", self.credentials)
    }

    /// The endpoint of the Redshift Data API.
    pub fn data_api_endpoint(&self) -> String {
        format!("http://{}", self.data_api)
    }

    /// From now on requests to the Data API go wrong. Says how often they did.
    pub fn fail_api(&self, rule: ApiRule) -> Met {
        let met = rule.met();
        self.shared.api.fail(rule);
        met
    }

    /// How many requests there were to the Data API, by operation.
    pub fn api_requests(&self) -> BTreeMap<String, u64> {
        self.shared.api.requests()
    }

    /// From now on the Data API keeps sessions that are made for so long at most, whatever is asked for.
    pub fn keep_sessions_at_most(&self, kept: Duration) {
        self.shared.api.keep_at_most(kept);
    }

    /// From now on something goes wrong. Says how often it did.
    pub fn fail(&self, rule: Rule) -> Met {
        let met = rule.met();
        self.shared.watch().rules.push(rule);
        met
    }

    /// Nothing goes wrong any more, and what was held goes on.
    pub fn heal(&self) {
        self.shared.watch().rules.clear();
        self.shared.api.heal();
        self.shared.heals.send_replace(());
    }

    /// A superuser lets the users see a view of the system's that only superusers see: `svv_table_info`.
    pub fn grant(&self, view: &str) {
        self.shared.watch().granted.insert(view.to_owned());
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        self.shared.watch().counters.clone()
    }

    /// Counts from zero, and forgets the history.
    pub fn reset_counters(&self) {
        self.shared.api.reset();
        let mut watch = self.shared.watch();
        watch.counters = Counters { most_sessions: watch.sessions, ..Counters::default() };
        watch.history.clear();
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> u64 {
        self.shared.watch().sessions
    }

    /// Every statement that came, in order, in one form of writing.
    pub fn history(&self) -> Vec<String> {
        self.shared.watch().history.clone()
    }

    /// Lends a password that is good for a while, as the APIs do.
    pub fn lend(&self, user: &str, password: &str, valid: Duration) {
        self.shared.users().lend(user, password.to_owned(), valid);
    }

    /// Every lent password has expired: sessions go on, new ones are refused.
    pub fn expire_credentials(&self) {
        self.shared.users().expire();
    }

    /// From now on nobody is lent a login: the endpoint answers with this error code of AWS'. `None`: they are again.
    pub fn refuse_to_lend(&self, code: Option<&'static str>) {
        self.shared.watch().lending_refused = code;
    }

    /// From now on logins are lent for at most so long.
    pub fn lend_at_most(&self, valid: Duration) {
        self.shared.watch().lends = Some(valid);
    }

    /// Closes all connections and ends; PostgreSQL rolls back what was open. Its database can be given to another emulator.
    pub async fn shutdown(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _aborted = task.await;
        }
        self.shared.api.end();
        self.shared.end_backends().await;
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.api.end();
    }
}

async fn listen(port: u16) -> Result<TcpListener, String> {
    TcpListener::bind(("127.0.0.1", port)).await.map_err(|e| format!("127.0.0.1:{port}: {e}"))
}

fn local(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|e| e.to_string())
}
