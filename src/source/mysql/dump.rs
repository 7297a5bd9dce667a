//! The server's binary log as it sends it to a replica: whole events, byte by byte.
//!
//! The library asks for the log and takes the packets apart; here events are put together again as they stand in the
//! log, so that our reader checks and reads them.

use std::time::Duration;

use futures::FutureExt;
use mysql_async::binlog::events::Event;
use mysql_async::{BinlogStream, BinlogStreamRequest, Sid};
use tokio::time::Instant;
use tokio_stream::StreamExt;

use super::connection::{Connection, Trouble, literal, within};
use super::place::Place;
use super::settings::Settings;
use super::setup::{self, Flavour, Server};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::binlog::{Checksum, EventReader, Payload};

/// How long the server may take to begin.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may look for the place in its files before it sends anything.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(300);
/// The shortest silence that is taken for a dead connection.
const SHORTEST_SILENCE: Duration = Duration::from_secs(30);
/// The largest place that can be asked for by file and position.
const LARGEST_POSITION: u64 = u32::MAX as u64;

/// What held a larger event is given back to the system.
const SPARE_BYTES: usize = 1 << 20;

/// How we register with the server.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub server_id: u32,
    /// Shown by `SHOW REPLICAS`.
    pub host: String,
    /// How often the server says that it is there.
    pub heartbeat: Duration,
}

/// The server's log from some place on.
pub(super) struct Dump {
    stream: BinlogStream,
    /// The silence that is taken for a dead connection, once the server has begun.
    silence: Duration,
    begun: bool,
    heard: Instant,
    /// Bytes of a compressed transaction that the library will hand out once more, one event after the other.
    repeated: u64,
    spare: Vec<u8>,
}

/// Where the server is to begin.
pub(super) struct Begin<'a> {
    pub place: &'a Place,
    /// The file and position to ask for; `None`: by GTIDs.
    pub at: Option<(&'a str, u64)>,
}

impl Dump {
    /// Asks for the log.
    pub async fn open(settings: &Settings, server: &Server, us: &Registered, from: &Begin<'_>) -> Result<Self> {
        let doing = || format!("read the binary log of {} behind {}", settings.place(), from.place.shown());
        let mut connection = Connection::open(settings).await?;
        let nanoseconds = us.heartbeat.as_nanos().max(1_000_000);
        let mut sql = format!("SET @master_heartbeat_period = {nanoseconds}, @source_heartbeat_period = {nanoseconds}");
        if server.flavour == Flavour::MariaDb {
            sql.push_str(
                ", @mariadb_slave_capability = 4, @slave_gtid_strict_mode = 0, @slave_gtid_ignore_duplicates = 0",
            );
            if from.at.is_none() {
                let gtids = from.place.gtids.as_deref().unwrap_or_default();
                sql.push_str(&format!(", @slave_connect_state = {}", literal(gtids)));
                sql = sql.replace("@slave_gtid_strict_mode = 0", "@slave_gtid_strict_mode = 1");
            }
        }
        connection.run(&sql).await.map_err(|trouble| trouble.error(doing()))?;
        let mut request = BinlogStreamRequest::new(us.server_id).with_hostname(us.host.as_bytes());
        match from.at {
            Some((file, pos)) if pos <= LARGEST_POSITION => {
                request = request.with_filename(file.as_bytes()).with_pos(pos);
            }
            _ if server.flavour == Flavour::MySql => {
                let sids = sids(from.place.gtids.as_deref().unwrap_or_default());
                request = request
                    .with_gtid()
                    .with_pos(4)
                    .with_gtid_set(sids.map_err(|what| Error::new(ErrorKind::LogCorrupt, doing()).because(what))?);
            }
            _ => {}
        }
        let opening = connection.conn.get_binlog_stream(request);
        let stream = within(BEGIN_TIMEOUT, opening).await;
        let stream = stream.map_err(|trouble| setup::explain(trouble, Some(server), doing()))?;
        let silence = (us.heartbeat * 3).max(SHORTEST_SILENCE);
        Ok(Self { stream, silence, begun: false, heard: Instant::now(), repeated: 0, spare: Vec::new() })
    }

    /// The bytes of the next event. Cancel-safe.
    pub async fn next(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            let limit = if self.begun { self.silence } else { self.silence.max(FIRST_EVENT_TIMEOUT) };
            let next = tokio::time::timeout_at(self.heard + limit, self.stream.next()).await;
            let silent = || Trouble::Broken(format!("the server has said nothing for {limit:?}").into());
            let event = next.map_err(|_| silent())?;
            if let Some(bytes) = self.event(event)? {
                return Ok(bytes);
            }
        }
    }

    /// The bytes of the next event, if it is there already.
    pub fn buffered(&mut self) -> Option<Result<Vec<u8>, Trouble>> {
        loop {
            let event = self.stream.next().now_or_never()?;
            if let Some(found) = self.event(event).transpose() {
                return Some(found);
            }
        }
    }

    /// Puts an event together; `None` when we have read it already.
    fn event(&mut self, event: Option<mysql_async::Result<Event>>) -> Result<Option<Vec<u8>>, Trouble> {
        let event = event.ok_or_else(|| Trouble::Broken("the server ended the stream".into()))??;
        self.heard = Instant::now();
        self.begun = true;
        let header = event.header();
        // Inside a compressed transaction nothing has a place of its own.
        if self.repeated > 0 && header.log_pos() == 0 && header.timestamp() != 0 {
            self.repeated = self.repeated.saturating_sub(u64::from(header.event_size()));
            return Ok(None);
        }
        self.repeated = 0;
        let mut bytes = std::mem::take(&mut self.spare);
        assemble(&event, &mut bytes);
        Ok(Some(bytes))
    }

    /// What held an event may hold another.
    pub fn give_back(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() <= SPARE_BYTES {
            self.spare = bytes;
        }
    }

    /// Silence counts from now on: nobody listened.
    pub fn listen(&mut self) {
        self.heard = Instant::now();
    }

    /// The library hands out the events of a compressed transaction as well, which we read ourselves.
    pub fn pass_over(&mut self, payload: &Payload<'_>) {
        self.repeated = payload.length;
    }
}

/// Puts an event together as it stands in the log.
fn assemble(event: &Event, out: &mut Vec<u8>) {
    let (header, data) = (event.header(), event.data());
    out.clear();
    out.reserve(data.len() + 24);
    out.extend(header.timestamp().to_le_bytes());
    out.push(header.event_type_raw());
    out.extend(header.server_id().to_le_bytes());
    out.extend(header.event_size().to_le_bytes());
    out.extend(header.log_pos().to_le_bytes());
    out.extend(header.flags_raw().to_le_bytes());
    out.extend_from_slice(data);
    let missing = (header.event_size() as usize).saturating_sub(out.len());
    // A format description ends with the kind of the checksum and the checksum, other events with the checksum.
    if missing == 5 {
        out.push(event.footer().get_checksum_alg().ok().flatten().map_or(0, |kind| kind as u8));
    }
    if missing >= 4 {
        out.extend(event.checksum().unwrap_or_default());
    }
}

/// A reader that knows how the first event is protected, which no format description has said yet.
pub(super) fn reader(first: &[u8]) -> EventReader {
    let protected = EventReader::new(Checksum::Crc32);
    if protected.clone().read(first).is_ok() { protected } else { EventReader::new(Checksum::None) }
}

/// A set of GTIDs as the library takes it: one entry for each server and tag.
fn sids(text: &str) -> Result<Vec<Sid<'static>>, String> {
    let mut sids = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let mut fields = part.split(':');
        let uuid = fields.next().unwrap_or_default();
        let mut entries: Vec<String> = Vec::new();
        for field in fields {
            let interval = field.starts_with(|c: char| c.is_ascii_digit());
            match entries.last_mut() {
                Some(entry) if interval => entry.push_str(&format!(":{field}")),
                _ => entries.push(format!("{uuid}:{field}")),
            }
        }
        for entry in entries {
            sids.push(entry.parse::<Sid<'static>>().map_err(|error| error.to_string())?);
        }
    }
    Ok(sids)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_set_becomes_one_entry_for_each_server_and_tag() {
        const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let sids = sids(&format!("{A}:1-5:7:blue:1-2:9:red:4,00000000-0000-0000-0000-000000000001:1")).unwrap();
        let shown: Vec<_> = sids.iter().map(|sid| (sid.tag().is_some(), sid.intervals().len())).collect();
        assert_eq!(shown, [(false, 2), (true, 2), (true, 1), (false, 1)]);
        assert!(super::sids("no-uuid:1").is_err());
    }
}
