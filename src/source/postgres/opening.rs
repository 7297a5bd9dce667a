//! Opening a source: what must be there is checked, what is missing is made, and the log says where it begins. The same
//! again, in smaller, when a connection broke.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::catalog::{self, CatalogTable};
use super::connection::{Connection, Purpose};
use super::lineage;
use super::place::{Captured, Identity, Place};
use super::protocol::Asked;
use super::settings::Settings;
use super::setup::{self, Added, Server, Wanted};
use super::{Postgres, lost};
use crate::config::{OnLostSlot, PostgresSnapshot, PostgresSource, SnapshotMode};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Generation, Partition, Standing, Standings};
use crate::telemetry::Status;
use crate::wire::pgoutput::Lsn;

/// A name that PostgreSQL would cut could be another topology's too.
const NAME_BYTES: usize = 63;
/// What was written without a publication can never be decoded.
const NO_PUBLICATION: &str = "its publication had been dropped";

/// The names of slot and publication.
pub(super) fn names(topology: &str, source: &str, config: &PostgresSource) -> Result<(String, String)> {
    let name = |given: &Option<String>, what| given.clone().map_or_else(|| default_name(topology, source, what), Ok);
    Ok((name(&config.slot, "slot")?, name(&config.publication, "publication")?))
}

/// The name of the slot that a source of that topology reads.
pub fn slot_name(topology: &str, source: &str, config: &PostgresSource) -> Result<String> {
    names(topology, source, config).map(|(slot, _)| slot)
}

/// The default name of slot and publication; `what` is the setting that says another one.
fn default_name(topology: &str, source: &str, what: &str) -> Result<String> {
    let sound = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    let name: String = format!("dataflow_{topology}_{source}").to_lowercase().chars().map(sound).collect();
    if name.len() <= NAME_BYTES {
        return Ok(name);
    }
    Err(Error::new(
        ErrorKind::Config,
        format!("source {source}: its {what} would be called {name}, and PostgreSQL's names have {NAME_BYTES} bytes"),
    )
    .help(format!("write `{what}:` with a shorter name into the source")))
}

/// The tables that are captured, as they are now.
fn identities(tables: &[CatalogTable]) -> Captured {
    tables.iter().map(|table| (table.name.clone(), Identity { id: table.id, state: table.state.clone() })).collect()
}

/// Makes a place fit the tables as they are now, and what happened to them while nobody read.
async fn fit(
    source: &str,
    place: &mut Place,
    captured: &Captured,
    snapshot: &PostgresSnapshot,
    connection: &mut Connection,
) -> Result<()> {
    place.fit(captured, snapshot.mode == SnapshotMode::Initial);
    for (name, known) in captured {
        let Some(before) = place.state(name) else { continue };
        let attached = known.state.attached_since(before);
        let came = catalog::any_filled(connection, &attached).await;
        let came =
            came.map_err(|trouble| trouble.error(format!("source {source}: look at the partitions of {name}")))?;
        let (silent, unread) = (known.state.since(before, came), place.reading.contains_key(name));
        if silent.is_some_and(|silent| silent.say(source, name, snapshot, unread)) {
            place.forget(name);
        } else if silent.is_some() || known.state.emptied_since(before).is_empty() {
            place.renew(name, known.state.clone(), silent);
        }
        // Whether all of it was emptied, which is an event, only the stream tells.
    }
    Ok(())
}

impl Postgres {
    /// Connects, checks what must be there, makes publication and slot, and finds out where the log says that the
    /// source stands. `streams` are the tables to read, as `<schema>.<table>`.
    ///
    /// # Errors
    /// `Config` and `SourceRefused` with the SQL to run for what is missing, `PositionLost` when the server no longer has
    /// what must come next, `SourceUnavailable` while it cannot be reached.
    pub async fn open(
        name: &str,
        config: &PostgresSource,
        topology: &str,
        streams: &[String],
        standings: Arc<dyn Standings>,
        status: Arc<Status>,
    ) -> Result<Self> {
        if streams.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("source {name}: no table of the topology reads from it"),
            )
            .help("write `from: <schema>.<table>` into a table, or leave the source out"));
        }
        let settings = Settings::new(name, config)?;
        let (slot, publication) = names(topology, name, config)?;
        let mut tables = streams.to_vec();
        tables.sort();
        let (server, mut replication) = setup::identify(&settings).await?;
        let asked = Asked::new(name, config, server.version)?;
        let progress = standings.latest().await?;
        let partition = Partition::new(name, format!("{slot}@{}", server.system));
        lineage::refuse_another(name, &partition, &progress)?;
        let standing = progress.get(&partition);
        let version = server.version;
        let wanted = Wanted { source: name, publication: &publication, version, slot: &slot, tables: &tables };
        let connection = Connection::open(&settings, Purpose::Query).await?;
        let mut opening = Opening { config, wanted: &wanted, server: &server, connection };
        let beginning = opening.begin(standing, &mut replication).await?;
        let confirmed = standing.map(|standing| Place::parse(&standing.position)).transpose()?;
        let opened = standing.map(|standing| standing.position.clone());
        Ok(Self {
            name: name.into(),
            config: config.clone(),
            claim: opened.as_ref() != Some(&beginning.place.position()),
            handed: beginning.place.clone(),
            confirmed: watch::Sender::new(confirmed.map_or(Lsn(0), |place| place.lsn)),
            at: opened.clone().unwrap_or_else(|| beginning.place.position()),
            opened,
            told: watch::Sender::new(None),
            behind: 0,
            wanted: watch::Sender::default(),
            worker: None,
            stale: false,
            settings,
            server,
            asked,
            slot,
            publication,
            status,
            captured: beginning.captured,
            partition,
            generation: beginning.generation,
            beginning: beginning.place,
        })
    }

    /// Looks again at what must be there: the server may be another one by now, tables may have been dropped and made
    /// again, or left the publication.
    pub(super) async fn look_again(&mut self) -> Result<()> {
        let tables: Vec<String> = self.captured.keys().cloned().collect();
        let wanted = Wanted {
            source: &self.name,
            publication: &self.publication,
            version: self.server.version,
            slot: &self.slot,
            tables: &tables,
        };
        let _replicates = lineage::same_server(&self.settings, &self.name, &self.server, &self.handed).await?;
        let mut connection = Connection::open(&self.settings, Purpose::Query).await?;
        lineage::must_have(&mut connection, &self.name, &self.slot, &self.handed).await?;
        // One that was dropped while it runs is a problem that the stream tells, and none of the others'.
        let found = setup::check_those_there(&mut connection, &wanted).await?;
        if !setup::has_publication(&mut connection, &wanted).await? {
            return Err(lost(&self.name, &self.slot, NO_PUBLICATION));
        }
        let added = setup::publication(&mut connection, &wanted, &found).await?;
        self.captured.extend(identities(&found));
        added.tables.iter().for_each(|table| self.handed.forget(table));
        fit(&self.name, &mut self.handed, &self.captured, &self.config.snapshot, &mut connection).await?;
        self.claim |= self.at != self.handed.position();
        self.stale = false;
        Ok(())
    }
}

/// Where a source begins.
struct Beginning {
    place: Place,
    generation: Generation,
    captured: Captured,
}

/// What decides where a source begins.
struct Opening<'a> {
    config: &'a PostgresSource,
    wanted: &'a Wanted<'a>,
    server: &'a Server,
    connection: Connection,
}

impl Opening<'_> {
    /// Nothing is made before it is clear that the server is the one that was read.
    async fn begin(&mut self, standing: Option<&Standing>, replication: &mut Connection) -> Result<Beginning> {
        let known = match standing {
            Some(standing) => Some(self.recognise(standing, replication).await?),
            None => None,
        };
        let found = setup::check(&mut self.connection, self.wanted).await?;
        if let Some((place, _)) = &known {
            self.mind_publication(place).await?;
        }
        let added = setup::publication(&mut self.connection, self.wanted, &found).await?;
        let (mut place, generation) = match known {
            Some((place, generation)) => self.go_on(place, generation, &added, replication).await?,
            None => (self.at_first().await?, 0),
        };
        let captured = identities(&found);
        fit(self.wanted.source, &mut place, &captured, &self.config.snapshot, &mut self.connection).await?;
        Ok(Beginning { place, generation, captured })
    }

    /// The place where the log stands, when the server has it.
    async fn recognise(&mut self, standing: &Standing, replication: &mut Connection) -> Result<(Place, Generation)> {
        let (source, slot) = (self.wanted.source, self.wanted.slot);
        let mut place = Place::parse(&standing.position)?;
        let mut generation = standing.generation;
        if lineage::follow(source, self.server, &mut place, replication).await? {
            place.begin_readings_again();
            generation += 1;
        }
        lineage::must_reach(source, self.server, &place)?;
        lineage::look_at_slot(&mut self.connection, source, slot, &place).await?;
        Ok((place, generation))
    }

    /// A slot that is there already was made by a person, or by us just before we died.
    async fn at_first(&mut self) -> Result<Place> {
        let lsn = match setup::slot(&mut self.connection, self.wanted.source, self.wanted.slot).await? {
            Some(slot) if slot.lost.is_none() => slot.confirmed,
            Some(_) => self.new_slot(true).await?,
            None => self.new_slot(false).await?,
        };
        Ok(self.place(lsn, BTreeSet::new()))
    }

    async fn go_on(
        &mut self,
        mut place: Place,
        generation: Generation,
        added: &Added,
        replication: &mut Connection,
    ) -> Result<(Place, Generation)> {
        let (source, slot) = (self.wanted.source, self.wanted.slot);
        let (slot, why) = lineage::look_at_slot(&mut self.connection, source, slot, &place).await?;
        // It was dropped just now.
        let why = why.or_else(|| added.publication.then(|| NO_PUBLICATION.to_owned()));
        // Without its place in the publication a table's changes were not for us.
        added.tables.iter().for_each(|table| place.forget(table));
        let Some(why) = why else {
            if self.config.failover && slot.is_some_and(|slot| !slot.failover) {
                setup::keep_on_standbys(replication, self.wanted).await?;
            }
            return Ok((place, generation));
        };
        if self.config.snapshot.on_lost_slot == OnLostSlot::Halt {
            return Err(lost(source, self.wanted.slot, &why));
        }
        tracing::warn!(source, "slot {} was lost ({why}); all tables are read again", self.wanted.slot);
        let lsn = self.new_slot(slot.is_some()).await?;
        place.begin_readings_again();
        let mut again = place.again;
        again.extend(place.tables.into_keys());
        Ok((self.place(lsn, again), generation + 1))
    }

    /// What was written without a publication can never be decoded. Once it is there again nothing tells that it was gone,
    /// so that the slot goes first.
    async fn mind_publication(&mut self, place: &Place) -> Result<()> {
        if setup::has_publication(&mut self.connection, self.wanted).await? {
            return Ok(());
        }
        let (source, slot) = (self.wanted.source, self.wanted.slot);
        let (there, why) = lineage::look_at_slot(&mut self.connection, source, slot, place).await?;
        if self.config.snapshot.on_lost_slot == OnLostSlot::Halt {
            let why = match there {
                Some(_) => why.unwrap_or_else(|| NO_PUBLICATION.to_owned()),
                None => format!(
                    "neither it nor publication {} is there any more, as in a database that was put back to an earlier \
                     state",
                    self.wanted.publication
                ),
            };
            return Err(lost(source, slot, &why));
        }
        match there {
            Some(_) => setup::drop_slot(&mut self.connection, self.wanted).await,
            None => Ok(()),
        }
    }

    async fn new_slot(&mut self, replace: bool) -> Result<Lsn> {
        if replace {
            setup::drop_slot(&mut self.connection, self.wanted).await?;
        }
        setup::make_slot(&mut self.connection, self.wanted, self.config.failover).await
    }

    /// A place whose tables are not read yet.
    fn place(&self, lsn: Lsn, again: BTreeSet<String>) -> Place {
        Place {
            lsn,
            timeline: self.server.timeline,
            slot_begins: None,
            within: None,
            tables: BTreeMap::new(),
            again,
            reading: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_be_cut_is_refused() {
        assert_eq!(default_name("Sales-EU", "shop", "slot").unwrap(), "dataflow_sales_eu_shop");
        let error = default_name(&"long".repeat(15), "shop", "slot").expect_err("refused");
        assert_eq!(*error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("`slot:`"), "{error}");
    }
}
