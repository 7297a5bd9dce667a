//! A shop that goes on selling while a test breaks things.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use loadtest::{Event, Expected, Options, Shop};

use super::world::Servers;

/// Between two portions: the source is busy all the time, and no epoch holds everything.
const PAUSE: Duration = Duration::from_millis(40);
/// Row events of a portion.
const PORTION: u64 = 60;
/// Row events after which a shop that nobody closes stops: far more than a test waits for. A shop that closes early
/// leaves a test waiting for epochs that cannot come.
const MOST: u64 = 500_000;

/// Where events go.
pub trait Counter: Send + 'static {
    /// Makes them durable at the source, and says how many records they are.
    fn sell(&mut self, events: &[Event]) -> u64;
}

/// A file that only grows.
pub struct Till(PathBuf);

impl Till {
    /// The file `shop.jsonl` in a folder.
    pub fn open(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let till = Self(folder.join("shop.jsonl"));
        till.append(&[]);
        till
    }

    fn append(&self, bytes: &[u8]) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        file.write_all(bytes).unwrap();
    }
}

impl Counter for Till {
    fn sell(&mut self, events: &[Event]) -> u64 {
        let lines: Vec<&[u8]> = events.iter().filter_map(|event| event.value.as_deref()).collect();
        let mut bytes = lines.join(&b'\n');
        bytes.push(b'\n');
        self.append(&bytes);
        lines.len() as u64
    }
}

impl Counter for Arc<Servers> {
    fn sell(&mut self, events: &[Event]) -> u64 {
        self.produce(events);
        events.len() as u64
    }
}

/// The shop, open until it is closed.
pub struct OpenShop {
    sold: Arc<AtomicU64>,
    /// How many row events it may sell.
    until: Arc<AtomicU64>,
    closing: Arc<AtomicBool>,
    selling: JoinHandle<(Expected, u64)>,
}

impl OpenShop {
    /// Sells until it is closed.
    pub fn open(seed: u64, options: Options, counter: impl Counter) -> Self {
        Self::open_until(MOST, seed, options, counter)
    }

    /// Sells so many row events and then no more until it is told to go on.
    pub fn open_until(enough: u64, seed: u64, options: Options, mut counter: impl Counter) -> Self {
        let until = Arc::new(AtomicU64::new(enough));
        let may_sell = Arc::clone(&until);
        let closing = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&closing);
        let sold = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sold);
        let selling = std::thread::spawn(move || {
            let mut shop = Shop::new(seed, options);
            let mut records = 0;
            while !closed.load(Ordering::Acquire) && shop.generated() < MOST {
                if shop.generated() + PORTION > may_sell.load(Ordering::Acquire) {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                let until = shop.generated() + PORTION;
                let mut events = Vec::new();
                while shop.generated() < until {
                    events.push(shop.next_event());
                }
                events.extend(shop.drain());
                records += counter.sell(&events);
                counted.store(shop.generated(), Ordering::Release);
                std::thread::sleep(PAUSE);
            }
            (shop.expected(), records)
        });
        Self { sold, until, closing, selling }
    }

    /// Lets a shop that has sold what it might sell go on.
    pub fn go_on(&self) {
        self.until.store(MOST, Ordering::Release);
    }

    /// Row events so far.
    pub fn sold(&self) -> u64 {
        self.sold.load(Ordering::Acquire)
    }

    /// Closes: what must be there in the end, and how many records were sold.
    pub fn close(self) -> (Expected, u64) {
        self.closing.store(true, Ordering::Release);
        self.selling.join().unwrap()
    }
}
