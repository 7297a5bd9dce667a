//! Which change comes next, and what is expected in the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::envelope::{Origin, PREFIX, Shape};
use crate::expected::{AddedColumn, ColumnSpec, Expected, RowHash, TableExpected, row_hash};
use crate::table::{Cell, Kind, Row, Subject, TABLE_NAMES};

/// Row events of the snapshot at the beginning, for each five tables.
const SNAPSHOT_EVENTS: u64 = 60;
/// Deleted keys that are remembered, so that some come back.
const GONE_KEYS: usize = 64;
/// 2026-06-01T00:00:00Z, where the simulated clock starts.
const SIMULATED_START_US: i64 = 1_780_272_000_000_000;

/// A planted bad event. None of them changes the rows that are expected in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// An order with a negative amount, for a rule `amount >= 0` that keeps the last valid version
    NegativeAmount,
    /// An order line whose quantity is a word
    WrongType,
    /// A message cut short
    BrokenJson,
}

impl Bad {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::NegativeAmount, Self::WrongType, Self::BrokenJson];

    /// The name in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Self::NegativeAmount => "negative_amount",
            Self::WrongType => "wrong_type",
            Self::BrokenJson => "broken_json",
        }
    }
}

/// Where the times in the envelope come from. Values of rows never depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// A fixed start and so many events a second: every byte follows from the seed.
    Simulated { events_per_second: u64 },
    /// The machine's.
    Wall,
}

/// What the shop does.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many tables; more than five repeat the five with `_2`, `_3`, ….
    pub tables: usize,
    /// Every message carries its schema block.
    pub schema_block: bool,
    /// The share of row events that are bad, 0 to 1.
    pub bad_rows: f64,
    /// Which bad ones.
    pub bad_kinds: Vec<Bad>,
    /// After so many row events `orders` gets its column `coupon`; `None`: never.
    pub add_column_after: Option<u64>,
    /// The shop begins with a snapshot (`r`).
    pub snapshot: bool,
    /// Some updates of customers change the key: a delete, its tombstone and a create, tied together by headers.
    pub moves: bool,
    /// Most updates of products carry the placeholder of an unchanged column instead of the description.
    pub toast: bool,
    /// Products move too, with the placeholder in the create half. Needs headers to be understood, so not for files.
    pub partial_moves: bool,
    /// The share of transactions after which the last two transactions are delivered again, 0 to 1.
    pub redeliver: f64,
    /// A tombstone follows each delete.
    pub tombstones: bool,
    /// The envelope's clock.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tables: TABLE_NAMES.len(),
            schema_block: false,
            bad_rows: 0.0,
            bad_kinds: Bad::ALL.to_vec(),
            add_column_after: None,
            snapshot: true,
            moves: false,
            toast: false,
            partial_moves: false,
            redeliver: 0.0,
            tombstones: true,
            clock: Clock::Simulated { events_per_second: 2_000 },
        }
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A valid row event with this op (`r`, `c`, `u`, `d`)
    Row(char),
    /// A planted bad one
    Bad(Bad),
    /// The tombstone after a delete
    Tombstone,
    /// A row event or tombstone that was there before, byte for byte
    Redelivered,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `shop.public.<table>`
    pub topic: Arc<str>,
    /// The key's bytes; `None` for a table without a key.
    pub key: Option<Vec<u8>>,
    /// The value's bytes; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// What it is.
    pub what: What,
}

#[derive(Debug)]
struct Table {
    subject: Subject,
    name: String,
    topic: Arc<str>,
    live: Vec<Row>,
    gone: Vec<Row>,
    next_id: u64,
    counts: TableExpected,
    shape: Shape,
}

/// The shop.
#[derive(Debug)]
pub struct Shop {
    seed: u64,
    options: Options,
    rng: fastrand::Rng,
    tables: Vec<Table>,
    generated: u64,
    messages: u64,
    grown: bool,
    origin: Origin,
    left_in_transaction: u32,
    queue: VecDeque<Event>,
    /// What the transaction before, and this one, have sent, for re-delivery.
    recent: [Vec<Event>; 2],
    cells: Vec<Cell>,
}

impl Shop {
    /// A shop that does the same thing whenever it is given the same seed and options.
    pub fn new(seed: u64, options: Options) -> Self {
        let tables = (0..options.tables.max(1)).map(|i| Table::new(i, options.schema_block)).collect();
        let origin = Origin {
            committed_us: SIMULATED_START_US,
            seen_us: SIMULATED_START_US,
            lsn: 0x1_0000_0000,
            last_commit_lsn: 0x1_0000_0000,
            transaction: 700,
            snapshot: options.snapshot,
        };
        Self {
            seed,
            options,
            rng: fastrand::Rng::with_seed(seed),
            tables,
            generated: 0,
            messages: 0,
            grown: false,
            origin,
            left_in_transaction: 0,
            queue: VecDeque::new(),
            recent: [Vec::new(), Vec::new()],
            cells: Vec::new(),
        }
    }

    /// Row events made so far, valid and bad; what is delivered again and tombstones do not count.
    pub fn generated(&self) -> u64 {
        self.generated
    }

    /// The next message. The shop never closes.
    pub fn next_event(&mut self) -> Event {
        loop {
            if let Some(event) = self.queue.pop_front() {
                self.messages += 1;
                return event;
            }
            self.make();
        }
    }

    /// What belongs to the last event and is not handed out yet: tombstones, the second half of a key update.
    pub fn drain(&mut self) -> Vec<Event> {
        self.messages += self.queue.len() as u64;
        self.queue.drain(..).collect()
    }

    /// What all events so far must lead to.
    pub fn expected(&self) -> Expected {
        self.expected_without(|_, _| false)
    }

    /// The same, with the columns left out of the hashes for which `hidden(table, column)` holds (masked ones).
    pub fn expected_without(&self, hidden: impl Fn(&str, &str) -> bool) -> Expected {
        let tables = self.tables.iter().map(|t| (t.name.clone(), t.expected(self.seed, self.grown, &hidden))).collect();
        let bad = self.tables.iter().flat_map(|t| t.counts.bad.values()).sum();
        Expected { seed: self.seed, generated: self.generated, bad, messages: self.messages, tables }
    }

    fn make(&mut self) {
        self.step_time();
        if self.options.add_column_after.is_some_and(|after| !self.grown && self.generated >= after) {
            self.grow();
        }
        let families = self.tables.len().div_ceil(TABLE_NAMES.len()) as u64;
        if self.options.snapshot && self.generated < SNAPSHOT_EVENTS * families && self.tables.len() > 3 {
            return self.snapshot_row();
        }
        self.origin.snapshot = false;
        if !self.options.bad_kinds.is_empty() && self.rng.f64() < self.options.bad_rows {
            return self.bad();
        }
        let table = self.pick_table();
        let [create, update] = self.tables[table].subject.shares();
        let dice = self.rng.u32(..100);
        if self.tables[table].live.is_empty() || dice < create {
            self.insert(table, b'c');
        } else if dice < create + update {
            self.update(table);
        } else {
            self.delete(table);
        }
    }

    /// Moves the WAL and the clock on, and begins a transaction every few events.
    fn step_time(&mut self) {
        self.origin.seen_us = match self.options.clock {
            Clock::Simulated { events_per_second } => {
                SIMULATED_START_US + (self.generated as i128 * 1_000_000 / i128::from(events_per_second.max(1))) as i64
            }
            Clock::Wall => {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(SIMULATED_START_US, |d| d.as_micros() as i64)
            }
        };
        if self.left_in_transaction == 0 {
            self.left_in_transaction = self.rng.u32(1..7);
            self.origin.transaction += 1;
            self.origin.last_commit_lsn = self.origin.lsn;
            self.origin.committed_us = self.origin.seen_us;
            if self.options.redeliver > 0.0 {
                self.perhaps_redeliver();
            }
        }
        self.left_in_transaction -= 1;
        self.origin.lsn += self.rng.u64(40..400);
    }

    fn perhaps_redeliver(&mut self) {
        if self.rng.f64() < self.options.redeliver {
            for event in self.recent.iter().flatten() {
                if let Some(table) = self.tables.iter_mut().find(|t| t.topic == event.topic) {
                    table.counts.redelivered += 1;
                }
                self.queue.push_back(Event { what: What::Redelivered, ..event.clone() });
            }
        }
        self.recent.swap(0, 1);
        self.recent[1].clear();
    }

    /// `ALTER TABLE orders ADD COLUMN coupon`
    fn grow(&mut self) {
        self.grown = true;
        for table in self.tables.iter_mut().filter(|t| t.subject == Subject::Orders) {
            table.shape = Shape::new(table.subject, &table.name, true, self.options.schema_block);
            table.counts.added_column = Some(AddedColumn { name: "coupon".into(), after_events: self.generated });
        }
    }

    fn pick_table(&mut self) -> usize {
        let total: u32 = self.tables.iter().map(|t| t.subject.weight()).sum();
        let mut dice = self.rng.u32(..total);
        for (i, table) in self.tables.iter().enumerate() {
            match dice.checked_sub(table.subject.weight()) {
                Some(rest) => dice = rest,
                None => return i,
            }
        }
        0
    }

    fn pick_of(&mut self, subject: Subject) -> Option<usize> {
        let of: Vec<usize> = (0..self.tables.len()).filter(|&i| self.tables[i].subject == subject).collect();
        self.rng.choice(of)
    }

    fn snapshot_row(&mut self) {
        let subject = if self.rng.u8(..3) < 2 { Subject::Customers } else { Subject::Products };
        if let Some(table) = self.pick_of(subject) {
            self.insert(table, b'r');
        }
    }

    fn insert(&mut self, table: usize, op: u8) {
        let row = self.new_row(table, op == b'c');
        self.send_row(table, op, None, &row, false);
        self.tables[table].live.push(row);
    }

    /// A row with a new key; sometimes, when `again`, with a key that was deleted before.
    fn new_row(&mut self, table: usize, again: bool) -> Row {
        let grown = self.grown;
        let comes_back = again && self.rng.u8(..10) == 0;
        let table = &mut self.tables[table];
        if comes_back && !table.gone.is_empty() {
            let row = table.gone.swap_remove(self.rng.usize(..table.gone.len()));
            return Row { version: row.version + 1, grown, ..row };
        }
        table.next_id += 1;
        Row { id: table.next_id, origin: table.next_id, version: 0, grown }
    }

    fn pick_live(&mut self, table: usize) -> usize {
        self.rng.usize(..self.tables[table].live.len())
    }

    fn update(&mut self, table: usize) {
        let at = self.pick_live(table);
        let old = self.tables[table].live[at];
        let subject = self.tables[table].subject;
        let moving = match subject {
            Subject::Customers => self.options.moves,
            Subject::Products => self.options.partial_moves,
            _ => false,
        };
        let mut row = Row { version: old.version + 1, grown: self.grown, ..old };
        let partial = subject.toasted().is_some() && self.options.toast && self.rng.u8(..10) < 6;
        if moving && self.rng.u8(..20) == 0 {
            self.tables[table].next_id += 1;
            row.id = self.tables[table].next_id;
            self.send_move(table, &old, &row, partial || self.options.partial_moves && subject.toasted().is_some());
        } else {
            self.send_row(table, b'u', None, &row, partial);
        }
        self.tables[table].live[at] = row;
    }

    fn delete(&mut self, table: usize) {
        let at = self.pick_live(table);
        let row = self.tables[table].live.swap_remove(at);
        self.send_delete(table, &row, None);
        let gone = &mut self.tables[table].gone;
        if gone.len() < GONE_KEYS {
            gone.push(row);
        }
    }

    fn bad(&mut self) {
        let kinds = self.options.bad_kinds.clone();
        let kind = self.rng.choice(kinds).unwrap_or(Bad::BrokenJson);
        let wanted = match kind {
            Bad::NegativeAmount => self.pick_of(Subject::Orders),
            Bad::WrongType => self.pick_of(Subject::OrderLines),
            Bad::BrokenJson => Some(self.pick_table()),
        };
        // With fewer than two tables there are no order lines.
        let (kind, table) = wanted.map_or((Bad::BrokenJson, 0), |table| (kind, table));
        let update = !self.tables[table].live.is_empty() && self.rng.bool();
        let (op, row) = if update {
            let at = self.pick_live(table);
            let old = self.tables[table].live[at];
            (b'u', Row { version: old.version + 1, grown: self.grown, ..old })
        } else {
            (b'c', self.new_row(table, false))
        };
        self.fill(table, &row);
        match kind {
            Bad::NegativeAmount => {
                if let Cell::Int(amount) = &mut self.cells[4] {
                    *amount = -*amount;
                }
            }
            Bad::WrongType => self.cells[3] = Cell::Text("three".into()),
            Bad::BrokenJson => {}
        }
        let table = &mut self.tables[table];
        let mut value = table.shape.value(op, None, Some(&self.cells), &self.origin);
        if kind == Bad::BrokenJson {
            value.truncate(value.len() * 2 / 3);
        }
        *table.counts.bad.entry(kind.name().into()).or_default() += 1;
        self.generated += 1;
        let key = table.shape.key(&self.cells);
        let topic = Arc::clone(&table.topic);
        self.queue.push_back(Event { topic, key, value: Some(value), headers: Vec::new(), what: What::Bad(kind) });
    }

    fn fill(&mut self, table: usize, row: &Row) {
        self.tables[table].subject.fill(self.seed, row, &mut self.cells);
    }

    fn send_move(&mut self, table: usize, old: &Row, new: &Row, partial: bool) {
        self.tables[table].counts.moves += 1;
        self.fill(table, new);
        let new_key = self.tables[table].shape.key_header(&self.cells);
        self.send_delete(table, old, Some(new_key));
        self.fill(table, old);
        let old_key = self.tables[table].shape.key_header(&self.cells);
        self.send_row(table, b'c', Some(old_key), new, partial);
    }

    fn send_delete(&mut self, table: usize, row: &Row, new_key: Option<Vec<u8>>) {
        // The row as the table has it now: a column added since is null in old rows, and `before` has it all the same.
        self.fill(table, &Row { grown: self.grown, ..*row });
        let shape = &self.tables[table].shape;
        let key = shape.key(&self.cells);
        let value = shape.value(b'd', Some(&shape.key_only(&self.cells)), None, &self.origin);
        let headers = new_key.map(|key| ("__debezium.newkey", key)).into_iter().collect();
        let topic = Arc::clone(&self.tables[table].topic);
        let event = Event { topic, key, value: Some(value), headers, what: What::Row('d') };
        let tombstone = Event { value: None, headers: Vec::new(), what: What::Tombstone, ..event.clone() };
        self.push(table, event);
        if self.options.tombstones {
            self.tables[table].counts.tombstones += 1;
            self.push(table, tombstone);
        }
    }

    fn send_row(&mut self, table: usize, op: u8, old_key: Option<Vec<u8>>, row: &Row, partial: bool) {
        self.fill(table, row);
        if let (true, Some(column)) = (partial, self.tables[table].subject.toasted()) {
            self.cells[column] = Cell::Unavailable;
        }
        let shape = &self.tables[table].shape;
        let event = Event {
            topic: Arc::clone(&self.tables[table].topic),
            key: shape.key(&self.cells),
            value: Some(shape.value(op, None, Some(&self.cells), &self.origin)),
            headers: old_key.map(|key| ("__debezium.oldkey", key)).into_iter().collect(),
            what: What::Row(char::from(op)),
        };
        self.push(table, event);
    }

    fn push(&mut self, table: usize, event: Event) {
        if let What::Row(op) = event.what {
            self.generated += 1;
            *self.tables[table].counts.events.entry(op.to_string()).or_default() += 1;
        }
        if self.options.redeliver > 0.0 && !self.origin.snapshot {
            self.recent[1].push(event.clone());
        }
        self.queue.push_back(event);
    }
}

impl Subject {
    /// How often the table changes, relative to the others.
    fn weight(self) -> u32 {
        match self {
            Self::Orders | Self::PageViews => 30,
            Self::OrderLines => 25,
            Self::Customers => 10,
            Self::Products => 5,
        }
    }

    /// Inserts and updates among a hundred changes; the rest are deletes.
    fn shares(self) -> [u32; 2] {
        match self {
            Self::Orders => [45, 50],
            Self::OrderLines => [75, 15],
            Self::Customers => [50, 45],
            Self::Products => [30, 65],
            Self::PageViews => [100, 0],
        }
    }
}

impl Table {
    fn new(number: usize, schema_block: bool) -> Self {
        let subject = Subject::all()[number % TABLE_NAMES.len()];
        let base = TABLE_NAMES[number % TABLE_NAMES.len()];
        let family = number / TABLE_NAMES.len() + 1;
        let name = if family == 1 { base.to_owned() } else { format!("{base}_{family}") };
        let topic: Arc<str> = format!("{PREFIX}.public.{name}").into();
        let shape = Shape::new(subject, &name, false, schema_block);
        Self {
            subject,
            topic,
            shape,
            name,
            live: Vec::new(),
            gone: Vec::new(),
            next_id: 0,
            counts: TableExpected::default(),
        }
    }

    fn expected(&self, seed: u64, grown: bool, hidden: impl Fn(&str, &str) -> bool) -> TableExpected {
        let all = &self.subject.columns()[..self.subject.width(grown)];
        let shown = |name: &str| !hidden(&self.name, name);
        let mut hash = RowHash::default();
        let mut sums = std::collections::BTreeMap::new();
        let mut cells = Vec::new();
        for row in &self.live {
            self.subject.fill(seed, row, &mut cells);
            let texts: Vec<(&str, String)> = all
                .iter()
                .zip(&cells)
                .filter(|(column, _)| shown(column.name))
                .filter_map(|(column, cell)| cell.canonical(column.kind).map(|text| (column.name, text)))
                .collect();
            hash.add(row_hash(texts.iter().map(|(name, text)| (*name, text.as_str()))));
            for (column, cell) in all.iter().zip(&cells) {
                if let (Kind::Decimal { .. }, Cell::Int(value)) = (column.kind, cell) {
                    *sums.entry(column.name.to_owned()).or_default() += value;
                }
            }
        }
        let columns = all.iter().filter(|c| shown(c.name)).map(|c| ColumnSpec { name: c.name.into(), kind: c.kind });
        TableExpected {
            topic: self.topic.to_string(),
            key: all[..self.subject.key_columns()].iter().map(|c| c.name.to_owned()).collect(),
            columns: columns.collect(),
            rows: hash.rows,
            hash: hash.hex(),
            sums,
            ..self.counts.clone()
        }
    }
}
