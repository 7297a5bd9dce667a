//! A TCP proxy that breaks what passes through it: cut, stalled, reset, half closed, refused; and healed again.
//!
//! ```ignore
//! let proxy = Proxy::to(server.port()).await;
//! let url = server.url("test_0").replace(&server.port().to_string(), &proxy.port().to_string());
//! proxy.after(1_000_000, Fault::Reset);       // once so many more bytes have come from the server
//! proxy.now(Fault::Stall);                    // at once, both ways, new connections included
//! proxy.heal();
//! ```

#![allow(dead_code, reason = "a tool box")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

const BUFFER: usize = 16 * 1024;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every connection is closed in order, in both directions. New ones work.
    Cut,
    /// Every connection is reset: what was on the way is lost. New ones work.
    Reset,
    /// The server's end says that nothing more comes, and goes on listening. New connections work.
    HalfClose,
    /// Nothing passes in either direction, and nobody is told. New connections are taken and hear nothing.
    Stall,
    /// Every connection is reset, and new ones are, too.
    Refuse,
}

/// What holds at present. Faults that concern the connections of one moment are counted: a connection obeys the counts that
/// grow after it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rules {
    stalled: bool,
    refused: bool,
    cuts: u64,
    resets: u64,
    half_closes: u64,
}

#[derive(Debug)]
struct Shared {
    target: AtomicU16,
    rules: watch::Sender<Rules>,
    /// Bytes from the server that may still pass before `then` happens.
    budget: AtomicU64,
    then: std::sync::Mutex<Option<Fault>>,
    passed: AtomicU64,
    connections: AtomicU64,
    faults: AtomicU64,
}

/// A listening proxy. Dropping it ends it and every connection through it.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.now(Fault::Refuse);
    }
}

impl Proxy {
    /// In front of a server of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(port),
            rules: watch::Sender::new(Rules::default()),
            budget: AtomicU64::new(u64::MAX),
            then: std::sync::Mutex::new(None),
            passed: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared))).abort_handle();
        Self { port: own, shared, listening }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// New connections go to another server: a failover.
    pub fn aim(&self, port: u16) {
        self.shared.target.store(port, Ordering::SeqCst);
    }

    /// Breaks what there is.
    pub fn now(&self, fault: Fault) {
        self.shared.happen(fault);
    }

    /// Breaks everything once so many more bytes have come from the server, on all connections together.
    pub fn after(&self, bytes: u64, fault: Fault) {
        *self.shared.then.lock().unwrap() = Some(fault);
        self.shared.budget.store(bytes, Ordering::SeqCst);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.shared.rules.send_modify(|rules| {
            rules.stalled = false;
            rules.refused = false;
        });
    }

    /// Bytes that have come from the server so far.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    /// Connections that were asked for so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Faults that have happened so far: those after a number of bytes come when they come.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn happen(&self, fault: Fault) {
        self.rules.send_modify(|rules| match fault {
            Fault::Cut => rules.cuts += 1,
            Fault::Reset => rules.resets += 1,
            Fault::HalfClose => rules.half_closes += 1,
            Fault::Stall => rules.stalled = true,
            Fault::Refuse => {
                rules.resets += 1;
                rules.refused = true;
            }
        });
        self.faults.fetch_add(1, Ordering::SeqCst);
    }

    /// How many of these bytes from the server may pass; the fault that was set happens when the last one has.
    fn spend(&self, bytes: usize) -> usize {
        let wanted = bytes as u64;
        let left = self.budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            Some(match left {
                u64::MAX => u64::MAX,
                left => left.saturating_sub(wanted),
            })
        });
        let left = left.expect("it always gives a value");
        let allowed = wanted.min(left);
        self.passed.fetch_add(allowed, Ordering::SeqCst);
        allowed as usize
    }

    /// The fault that was set, when the budget is spent: once.
    fn due(&self) -> Option<Fault> {
        if self.budget.compare_exchange(0, u64::MAX, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return None;
        }
        self.then.lock().unwrap().take()
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(connection(client, Arc::clone(&shared)));
    }
}

async fn connection(mut client: TcpStream, shared: Arc<Shared>) {
    let first = *shared.rules.borrow();
    let server = TcpStream::connect(("127.0.0.1", shared.target.load(Ordering::SeqCst))).await;
    let (false, Ok(mut server)) = (first.refused, server) else {
        let _gone = client.set_zero_linger();
        return;
    };
    let _unsupported = (client.set_nodelay(true), server.set_nodelay(true));
    let mut rules = shared.rules.subscribe();
    let reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = Pump { shared: &shared, first, from_server: false };
        let down = Pump { shared: &shared, first, from_server: true };
        let both = async {
            tokio::join!(up.run(from_client, to_server), down.run(from_server, to_client));
        };
        tokio::select! {
            // First of all: after a fault nothing more passes, whichever of the two is ready.
            biased;
            broken = rules.wait_for(|now| now.cuts > first.cuts || now.resets > first.resets) => {
                broken.is_ok_and(|now| now.resets > first.resets)
            }
            () = both => false,
        }
    };
    if reset {
        let _gone = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// One direction of a connection.
struct Pump<'a> {
    shared: &'a Shared,
    /// What held when the connection came.
    first: Rules,
    from_server: bool,
}

impl Pump<'_> {
    async fn run(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
        let mut rules = self.shared.rules.subscribe();
        let mut buffer = vec![0; BUFFER];
        while !self.half_closed(&rules.borrow()) {
            // While it is stalled nothing is read: what comes waits in the sockets, its end included.
            drop(rules.wait_for(|now| !now.stalled).await);
            let read = tokio::select! {
                read = from.read(&mut buffer) => read.unwrap_or(0),
                _change = rules.wait_for(|now| now.stalled || self.half_closed(now)) => continue,
            };
            if read == 0 || !self.pass(&buffer[..read], &mut to, &mut rules).await {
                break;
            }
        }
        let _gone = to.shutdown().await;
    }

    fn half_closed(&self, now: &Rules) -> bool {
        self.from_server && now.half_closes > self.first.half_closes
    }

    /// Writes what may pass; then does what is due, and the rest passes when that is over. Whether the reader is there.
    async fn pass(&self, bytes: &[u8], to: &mut WriteHalf<'_>, rules: &mut watch::Receiver<Rules>) -> bool {
        let allowed = if self.from_server { self.shared.spend(bytes.len()) } else { bytes.len() };
        let mut there = to.write_all(&bytes[..allowed]).await.is_ok();
        if self.from_server
            && let Some(fault) = self.shared.due()
        {
            self.shared.happen(fault);
            // A connection that is cut or reset ends while this waits.
            tokio::task::yield_now().await;
            drop(rules.wait_for(|now| !now.stalled).await);
            there &= !self.half_closed(&rules.borrow()) && to.write_all(&bytes[allowed..]).await.is_ok();
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that says back what it hears.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _gone = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        port
    }

    async fn through(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await?;
        Ok(heard)
    }

    #[tokio::test]
    async fn every_fault_breaks_in_its_way_and_heals() {
        let proxy = Proxy::to(echo().await).await;
        let mut stream = through(&proxy).await;
        assert_eq!(say(&mut stream, b"hello").await.unwrap(), b"hello");
        assert_eq!((proxy.passed(), proxy.connections()), (5, 1));

        proxy.now(Fault::Stall);
        stream.write_all(b"later").await.unwrap();
        let mut heard = [0; 5];
        let early = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut heard)).await;
        assert!(early.is_err(), "a stalled connection says nothing");
        proxy.heal();
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"later");

        proxy.after(3, Fault::Cut);
        stream.write_all(b"abcdef").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"abc");

        let mut stream = through(&proxy).await;
        assert_eq!(say(&mut stream, b"new").await.unwrap(), b"new");
        proxy.now(Fault::Reset);
        let error = stream.read_exact(&mut heard).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

        let mut stream = through(&proxy).await;
        assert_eq!(say(&mut stream, b"new").await.unwrap(), b"new");
        proxy.now(Fault::HalfClose);
        assert_eq!(stream.read(&mut heard).await.unwrap(), 0);
        stream.write_all(b"still heard").await.unwrap();

        proxy.now(Fault::Refuse);
        let mut stream = through(&proxy).await;
        assert!(say(&mut stream, b"no").await.is_err());
        proxy.heal();
        let mut stream = through(&proxy).await;
        assert_eq!(say(&mut stream, b"yes").await.unwrap(), b"yes");
    }
}
