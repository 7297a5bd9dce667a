//! What all connections share, and the loop that takes them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::Options;
use crate::backend::{Address, Backend};
use crate::conflict::Conflicts;
use crate::copy::Objects;
use crate::data_api::Api;
use crate::fault::Watch;
use crate::lex::{Token, literal};
use crate::names::Names;
use crate::refusal::Stop;
use crate::session::Session;
use crate::startup;

/// What all connections share.
pub(crate) struct Shared {
    pub options: Options,
    pub postgres: Address,
    pub tls: Option<tokio_rustls::TlsAcceptor>,
    pub objects: Objects,
    /// A connection for what must outlive a rollback.
    pub admin: tokio::sync::Mutex<Backend>,
    /// Whether there has ever been a late-binding view.
    pub late_views: AtomicBool,
    salts: AtomicU32,
    /// Tells that nothing goes wrong any more.
    pub heals: tokio::sync::watch::Sender<()>,
    watch: Mutex<Watch>,
    /// What the Data API keeps.
    pub api: Api,
    conflicts: Mutex<Conflicts>,
    users: Mutex<Users>,
    names: Mutex<Names>,
    /// Process ids of PostgreSQL's that serve a session.
    backends: Mutex<Vec<u32>>,
}

impl Shared {
    pub async fn new(options: Options) -> Result<Self, String> {
        let postgres = Address::parse(&options.postgres_url)?;
        let wrong = |e: Stop| format!("the database of redshift-sim at {}: {e:?}", options.postgres_url);
        let mut admin = Backend::connect(&postgres).await.map_err(|e| wrong(e.into()))?;
        install(&mut admin, &options).await.map_err(wrong)?;
        let mut names = Names::default();
        let known = admin.rows("SELECT long FROM sim.names").await.map_err(wrong)?;
        known.iter().flatten().flatten().for_each(|name| names.add(name));
        let late = admin.value("SELECT count(*) FROM sim.late_views").await.map_err(wrong)?;
        let tls = options.tls.as_ref().map(|tls| tls.acceptor()).transpose()?;
        let users = Users { fixed: options.users.iter().cloned().collect(), temporary: HashMap::new() };
        Ok(Self {
            postgres,
            tls,
            objects: Objects::new(options.s3.clone()),
            admin: tokio::sync::Mutex::new(admin),
            late_views: AtomicBool::new(late.as_deref() != Some("0")),
            salts: AtomicU32::new(std::process::id()),
            heals: tokio::sync::watch::Sender::new(()),
            watch: Mutex::default(),
            api: Api::default(),
            conflicts: Mutex::default(),
            users: Mutex::new(users),
            names: Mutex::new(names),
            backends: Mutex::default(),
            options,
        })
    }

    pub fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn conflicts(&self) -> MutexGuard<'_, Conflicts> {
        self.conflicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the long names of a statement, where a rollback does not reach them.
    pub async fn remember(&self, tokens: &[Token]) -> Result<(), Stop> {
        let new: Vec<&str> = tokens.iter().filter_map(Token::name).filter(|name| self.names().is_new(name)).collect();
        for name in new {
            let (short, long) = (literal(&crate::names::short(name)), literal(name));
            let insert = format!("INSERT INTO sim.names VALUES ({short}, {long}) ON CONFLICT DO NOTHING");
            self.admin.lock().await.rows(&insert).await?;
            self.names().add(name);
        }
        Ok(())
    }

    pub fn backends(&self) -> MutexGuard<'_, Vec<u32>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn salt(&self) -> [u8; 4] {
        self.salts.fetch_add(0x9e37_79b9, Ordering::Relaxed).to_be_bytes()
    }

    /// Ends what PostgreSQL still does for sessions that have been dropped.
    pub async fn end_backends(&self) {
        let pids: Vec<String> = self.backends().drain(..).map(|pid| pid.to_string()).collect();
        if !pids.is_empty() {
            let sql = format!("SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[{}]) AS pid", pids.join(","));
            let _at_the_end = self.admin.lock().await.rows(&sql).await;
        }
    }
}

/// Puts Redshift's catalog into the database, once.
async fn install(admin: &mut Backend, options: &Options) -> Result<(), Stop> {
    let there = admin.value("SELECT to_regnamespace('sim')").await?.is_some();
    if !there {
        admin.rows(concat!("BEGIN;", include_str!("catalog.sql"), ";COMMIT")).await?;
    }
    let level = options.isolation.name();
    let collation = if options.case_insensitive { "case_insensitive" } else { "case_sensitive" };
    let insert = format!("DELETE FROM sim.isolation; INSERT INTO sim.isolation VALUES ('{level}', '{collation}')");
    admin.rows(&insert).await?;
    Ok(())
}

/// Who may connect.
#[derive(Debug, Default)]
pub(crate) struct Users {
    fixed: HashMap<String, String>,
    temporary: HashMap<String, (String, std::time::Instant)>,
}

impl Users {
    /// The password that is good now.
    pub fn password(&self, user: &str) -> Option<String> {
        let temporary = self.temporary.get(user).filter(|(_, until)| *until > std::time::Instant::now());
        self.fixed.get(user).or(temporary.map(|(password, _)| password)).cloned()
    }

    /// A password that is good for a while: <https://docs.aws.amazon.com/redshift/latest/mgmt/generating-user-credentials.html>.
    /// It is asked for at login only; a session outlives it.
    pub fn lend(&mut self, user: &str, password: String, valid: std::time::Duration) {
        self.temporary.insert(user.to_owned(), (password, std::time::Instant::now() + valid));
    }

    /// Every lent password has expired.
    pub fn expire(&mut self) {
        self.temporary.clear();
    }
}

/// Takes connections until it is dropped.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        while sessions.try_join_next().is_some() {}
        let Ok((socket, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        sessions.spawn(async move {
            // Whoever breaks the protocol or goes away is let go; the tests see it from their side.
            if let Ok(Some(client)) = startup::accept(socket, &shared).await {
                let _gone = Session::run(client, shared).await;
            }
        });
    }
}
