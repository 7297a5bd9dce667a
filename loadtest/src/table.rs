//! The tables of the shop: columns, and what a row holds.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::json;

/// The tables, in the order in which `--tables N` takes them; more than five repeat them with `_2`, `_3`, ….
pub const TABLE_NAMES: [&str; 5] = ["orders", "order_lines", "customers", "products", "page_views"];

/// A column's type at the source, in PostgreSQL's words, and how Debezium writes it with its default modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Boolean,
    SmallInt,
    Int,
    BigInt,
    Double,
    /// Base64 of the unscaled value; at most 18 digits here.
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// Days
    Date,
    /// Microseconds as a number
    Timestamp,
    /// RFC 3339 text
    TimestampTz,
    Text,
    Json,
    Uuid,
}

/// One value. Decimals are unscaled, dates are days, times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    /// Not sent because the source left it unchanged.
    Unavailable,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub nullable: bool,
}

const fn needed(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, nullable: false }
}

const fn optional(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, nullable: true }
}

const MONEY: Kind = Kind::Decimal { precision: 12, scale: 2 };

const CUSTOMERS: &[Column] = &[
    needed("id", Kind::BigInt),
    needed("email", Kind::Text),
    needed("full_name", Kind::Text),
    needed("country", Kind::Text),
    optional("phone", Kind::Text),
    optional("date_of_birth", Kind::Date),
    needed("loyalty", Kind::SmallInt),
    needed("credit_limit", MONEY),
    needed("created_at", Kind::TimestampTz),
    needed("updated_at", Kind::Timestamp),
];

const PRODUCTS: &[Column] = &[
    needed("id", Kind::BigInt),
    needed("sku", Kind::Uuid),
    needed("title", Kind::Text),
    needed("price", MONEY),
    needed("stock", Kind::Int),
    optional("weight_kg", Kind::Double),
    needed("active", Kind::Boolean),
    needed("attributes", Kind::Json),
    needed("description", Kind::Text),
    needed("updated_at", Kind::Timestamp),
];

/// `coupon` stays the last one: it is the column that appears on the way.
const ORDERS: &[Column] = &[
    needed("id", Kind::BigInt),
    needed("customer_id", Kind::BigInt),
    needed("region", Kind::Text),
    needed("status", Kind::Text),
    needed("amount", MONEY),
    needed("discount", MONEY),
    needed("currency", Kind::Text),
    needed("items", Kind::Int),
    optional("note", Kind::Text),
    needed("placed_at", Kind::Timestamp),
    needed("updated_at", Kind::TimestampTz),
    optional("coupon", Kind::Text),
];

const ORDER_LINES: &[Column] = &[
    needed("order_id", Kind::BigInt),
    needed("line_no", Kind::Int),
    needed("product_id", Kind::BigInt),
    needed("quantity", Kind::Int),
    needed("price", MONEY),
    needed("gift", Kind::Boolean),
];

const PAGE_VIEWS: &[Column] = &[
    needed("viewed_at", Kind::TimestampTz),
    needed("session", Kind::Uuid),
    optional("customer_id", Kind::BigInt),
    needed("url", Kind::Text),
    optional("referrer", Kind::Text),
    needed("duration_ms", Kind::Int),
];

/// Which of the five tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Orders,
    OrderLines,
    Customers,
    Products,
    PageViews,
}

/// A row by what determines its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The key as one number.
    pub id: u64,
    /// The key that it was inserted with: values that never change follow from it.
    pub origin: u64,
    /// Grows with every update: values that change follow from it.
    pub version: u32,
    /// Whether the added column exists in this version.
    pub grown: bool,
}

const FIRST: [&str; 12] =
    ["Ada", "Brünhild", "Chidi", "Dolores", "Émile", "Fatima", "Grace", "Hélène", "Ivo", "José", "Kim", "Lena"];
const LAST: [&str; 10] =
    ["Adeyemi", "Bauer", "Castañeda", "Dubois", "Eriksson", "Fischer", "García", "Horváth", "Ito", "O'Neill"];
const COUNTRIES: [&str; 8] = ["DE", "FR", "ES", "IT", "PL", "SE", "US", "JP"];
const REGIONS: [&str; 6] = ["north", "south", "east", "west", "centre", "overseas"];
const STATUSES: [&str; 5] = ["new", "paid", "packed", "shipped", "returned"];
const GOODS: [&str; 8] = ["Mug", "Lamp", "Chair", "Kettle", "Notebook", "Backpack", "Bicycle bell", "Tent"];
const COLOURS: [&str; 6] = ["red", "green", "blue", "black", "white", "yellow"];
const NOTES: [&str; 4] =
    ["ring \"twice\"", "leave at the neighbour's", "gift: no invoice\nin the box", "avant 18 h, s'il vous plaît"];
const PAGES: [&str; 6] = ["/", "/search?q=lamp", "/cart", "/product/17", "/checkout/address", "/account/orders"];
/// 2026-01-01T00:00:00Z
const OPENING_US: i64 = 1_767_225_600_000_000;

impl Subject {
    pub fn all() -> [Self; 5] {
        [Self::Orders, Self::OrderLines, Self::Customers, Self::Products, Self::PageViews]
    }

    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Orders => ORDERS,
            Self::OrderLines => ORDER_LINES,
            Self::Customers => CUSTOMERS,
            Self::Products => PRODUCTS,
            Self::PageViews => PAGE_VIEWS,
        }
    }

    /// How many of the first columns are the key.
    pub fn key_columns(self) -> usize {
        match self {
            Self::PageViews => 0,
            Self::OrderLines => 2,
            Self::Orders | Self::Customers | Self::Products => 1,
        }
    }

    /// The number of columns before and after the added one appears.
    pub fn width(self, grown: bool) -> usize {
        self.columns().len() - usize::from(self == Self::Orders && !grown)
    }

    /// The values of `row`. The same seed, row and version give the same values for ever.
    pub fn fill(self, seed: u64, row: &Row, cells: &mut Vec<Cell>) {
        let draw = |what: u64| {
            fastrand::Rng::with_seed(xxh3_64_with_seed(&row.origin.to_le_bytes(), seed ^ (what << 32) ^ (self as u64)))
        };
        // One stream for values that stay, one for values that change.
        let (mut fixed, mut fresh) = (draw(0), draw(1 + u64::from(row.version)));
        cells.clear();
        match self {
            Self::Orders => order(row, &mut fixed, &mut fresh, cells),
            Self::OrderLines => order_line(row, &mut fixed, &mut fresh, cells),
            Self::Customers => customer(row, &mut fixed, &mut fresh, cells),
            Self::Products => product(row, &mut fixed, &mut fresh, cells),
            Self::PageViews => page_view(row, &mut fixed, cells),
        }
    }

    /// The position of the column that may be stored out of line and then comes as a placeholder.
    pub fn toasted(self) -> Option<usize> {
        (self == Self::Products).then_some(8)
    }
}

fn pick<'a>(rng: &mut fastrand::Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

fn text(value: impl Into<String>) -> Cell {
    Cell::Text(value.into())
}

fn sometimes(rng: &mut fastrand::Rng, share: f64, value: impl FnOnce(&mut fastrand::Rng) -> Cell) -> Cell {
    if rng.f64() < share { value(rng) } else { Cell::Null }
}

fn changed_at(row: &Row) -> i64 {
    OPENING_US + row.origin as i64 * 1_700_003 + i64::from(row.version) * 61_000_777
}

fn created_at(row: &Row) -> i64 {
    OPENING_US + row.origin as i64 * 1_700_003
}

fn uuid(rng: &mut fastrand::Rng) -> Cell {
    let bits = (rng.u128(..) & !(0xf000 << 64) & !(0xc << 60)) | (0x4000 << 64) | (0x8 << 60);
    let hex = format!("{bits:032x}");
    text(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

fn order(row: &Row, fixed: &mut fastrand::Rng, fresh: &mut fastrand::Rng, cells: &mut Vec<Cell>) {
    let amount = fresh.i64(100..5_000_000);
    cells.extend([
        Cell::Int(row.id as i64),
        Cell::Int(1 + fixed.i64(0..40 + row.origin as i64 / 4)),
        text(pick(fixed, &REGIONS)),
        text(STATUSES[(row.version as usize).min(STATUSES.len() - 1)]),
        Cell::Int(amount),
        Cell::Int(fresh.i64(0..amount / 5 + 1)),
        text(pick(fixed, &["EUR", "USD", "JPY"])),
        Cell::Int(fixed.i64(1..12)),
        sometimes(fresh, 0.2, |rng| text(pick(rng, &NOTES))),
        Cell::Int(created_at(row)),
        Cell::Int(changed_at(row)),
    ]);
    if row.grown {
        cells.push(sometimes(fresh, 0.5, |rng| text(format!("SAVE{}", rng.u32(5..50)))));
    }
}

/// The key of an order line is its number in the table, spread over orders of three lines.
fn order_line(row: &Row, fixed: &mut fastrand::Rng, fresh: &mut fastrand::Rng, cells: &mut Vec<Cell>) {
    cells.extend([
        Cell::Int(1 + (row.id / 3) as i64),
        Cell::Int(1 + (row.id % 3) as i64),
        Cell::Int(1 + fixed.i64(0..200)),
        Cell::Int(fresh.i64(1..9)),
        Cell::Int(fixed.i64(99..2_000_000)),
        Cell::Bool(fresh.bool()),
    ]);
}

fn customer(row: &Row, fixed: &mut fastrand::Rng, fresh: &mut fastrand::Rng, cells: &mut Vec<Cell>) {
    let (first, last) = (pick(fixed, &FIRST), pick(fixed, &LAST));
    cells.extend([
        Cell::Int(row.id as i64),
        text(format!("customer{}.{}@example.com", row.origin, row.version)),
        text(format!("{first} {last}")),
        text(pick(fixed, &COUNTRIES)),
        sometimes(fresh, 0.7, |rng| text(format!("+49 30 {:07}", rng.u32(..10_000_000)))),
        sometimes(fixed, 0.8, |rng| Cell::Int(rng.i64(-7_000..14_000))),
        Cell::Int(fresh.i64(0..5)),
        Cell::Int(fresh.i64(0..9_000_000)),
        Cell::Int(created_at(row)),
        Cell::Int(changed_at(row)),
    ]);
}

fn product(row: &Row, fixed: &mut fastrand::Rng, fresh: &mut fastrand::Rng, cells: &mut Vec<Cell>) {
    let (colour, good) = (pick(fixed, &COLOURS), pick(fixed, &GOODS));
    let sku = uuid(fixed);
    // Eighths are exact in binary, so every warehouse prints the same number.
    let weight = sometimes(fixed, 0.9, |rng| Cell::Double(f64::from(rng.u32(1..400)) / 8.0));
    let sentence = format!("A {colour} {good}, made to last. ");
    let description = text(sentence.repeat(fixed.usize(3..12)));
    cells.extend([
        Cell::Int(row.id as i64),
        sku,
        text(format!("{good}, {colour}")),
        Cell::Int(fresh.i64(99..2_000_000)),
        Cell::Int(fresh.i64(0..5_000)),
        weight,
        Cell::Bool(fresh.f64() < 0.95),
        // As jsonb prints it: shorter names first.
        text(format!("{{\"size\": \"{}\", \"colour\": \"{colour}\"}}", pick(fresh, &["S", "M", "L"]))),
        description,
        Cell::Int(changed_at(row)),
    ]);
}

fn page_view(row: &Row, fixed: &mut fastrand::Rng, cells: &mut Vec<Cell>) {
    cells.extend([
        Cell::Int(created_at(row)),
        uuid(fixed),
        sometimes(fixed, 0.4, |rng| Cell::Int(rng.i64(1..5_000))),
        text(format!("https://shop.example.com{}", pick(fixed, &PAGES))),
        sometimes(fixed, 0.5, |rng| text(pick(rng, &["https://search.example.net/", "https://mail.example.org/"]))),
        Cell::Int(fixed.i64(20..60_000)),
    ]);
}

impl Cell {
    /// Appends the value as Debezium writes it in JSON.
    pub fn write_json(&self, kind: Kind, out: &mut Vec<u8>) {
        match (self, kind) {
            (Self::Null, _) => out.extend_from_slice(b"null"),
            (Self::Unavailable, _) => out.extend_from_slice(b"\"__debezium_unavailable_value\""),
            (Self::Bool(value), _) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            (Self::Int(value), Kind::Decimal { .. }) => json::decimal(out, *value),
            (Self::Int(value), Kind::TimestampTz) => json::zoned_timestamp(out, *value),
            (Self::Int(value), _) => json::int(out, *value),
            (Self::Double(value), _) => out.extend_from_slice(format!("{value:?}").as_bytes()),
            (Self::Text(value), _) => json::text(out, value),
        }
    }

    /// The canonical text that hashes are made of; `None` for null.
    pub fn canonical(&self, kind: Kind) -> Option<String> {
        match (self, kind) {
            (Self::Null | Self::Unavailable, _) => None,
            (Self::Bool(value), _) => Some(value.to_string()),
            (Self::Int(value), Kind::Decimal { scale, .. }) => {
                let unit = 10u64.pow(u32::from(scale));
                let (whole, rest) = (value.unsigned_abs() / unit, value.unsigned_abs() % unit);
                let sign = if *value < 0 { "-" } else { "" };
                Some(format!("{sign}{whole}.{rest:0width$}", width = usize::from(scale)))
            }
            (Self::Int(value), _) => Some(value.to_string()),
            (Self::Double(value), _) => Some(value.to_string()),
            (Self::Text(value), _) => Some(value.clone()),
        }
    }

    /// What PostgreSQL's default replica identity makes Debezium invent for a column outside the key in `before`.
    pub fn invented(column: &Column) -> Self {
        match column.kind {
            _ if column.nullable => Self::Null,
            Kind::Boolean => Self::Bool(false),
            Kind::Double => Self::Double(0.0),
            Kind::Text | Kind::Json | Kind::Uuid => Self::Text(String::new()),
            _ => Self::Int(0),
        }
    }
}
