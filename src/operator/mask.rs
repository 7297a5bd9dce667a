//! `mask`: values are made unreadable. Null stays null, and a value that the source left unchanged stays unchanged.
//!
//! # Pseudonyms (`hmac`)
//!
//! `v<key version>:` and the first 128 bits, in hexadecimal, of HMAC-SHA-256 over the domain, a zero byte and the value's
//! normal form. The form does not depend on the column's type, so that keys join across tables: whole and fixed-point
//! numbers and floats are decimal digits without zeros that say nothing (a bigint 1, a decimal 1.00 and a text `1` get
//! one pseudonym), booleans `true` and `false`, times ISO 8601 with microseconds only where there are any, bytes
//! hexadecimal. Text is taken byte for byte: where case or blanks do not matter, a `compute` with `lower(trim(…))` goes
//! before the mask.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder, new_null_array};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config;
use crate::config::{DatePart, MaskMethod};
use crate::contract::Type;
use crate::error::Result;

use super::rows::{Context, Rows};
use super::scope::Scope;
use super::text::{self, DAY_US};
use super::{Fault, Lineage, Step, Transform};

/// The fewest bytes of an hmac key.
const MIN_KEY_BYTES: usize = 32;

/// How one value is made unreadable.
#[derive(Clone)]
pub(super) enum Mask {
    /// A keyed pseudonym. The state has taken in key and domain already.
    Hmac { state: Box<Hmac<Sha256>>, prefix: String },
    /// A fixed text.
    Redact(String),
    /// Some characters stay.
    Partial { first: usize, last: usize },
    /// Nothing stays.
    Null,
    /// A date or time is cut.
    TruncateDate(DatePart),
}

/// Masked columns without their types.
pub(super) struct MaskColumns {
    names: Vec<String>,
    method: MaskMethod,
    mask: Mask,
}

/// Masked columns.
struct Masked {
    mask: Mask,
    columns: Vec<Target>,
}

struct Target {
    index: usize,
    data_type: Type,
    /// Its place in the key.
    key_part: Option<usize>,
}

impl MaskColumns {
    /// Reads the operator.
    pub fn new(config: &config::Mask) -> Result<Self, Vec<Fault>> {
        let mut faults = foreign_options(config);
        if config.columns.is_empty() {
            faults.push(Fault::new("mask.columns", "there is no column to mask"));
        }
        for (index, name) in config.columns.iter().enumerate() {
            if config.columns[..index].contains(name) {
                faults.push(Fault::new("mask.columns", format!("`{name}` is listed twice")));
            }
        }
        match method(config) {
            Ok(mask) if faults.is_empty() => Ok(Self { names: config.columns.clone(), method: config.method, mask }),
            Ok(_) => Err(faults),
            Err(mut more) => {
                faults.append(&mut more);
                Err(faults)
            }
        }
    }
}

/// Options that the method does not know: a person meant something by them.
fn foreign_options(config: &config::Mask) -> Vec<Fault> {
    use MaskMethod::{Hmac, Partial, Redact, TruncateDate};
    [
        ("domain", config.domain.is_some(), Hmac, "hmac"),
        ("key", config.key.is_some(), Hmac, "hmac"),
        ("key_version", config.key_version.is_some(), Hmac, "hmac"),
        ("replacement", config.replacement.is_some(), Redact, "redact"),
        ("keep_first", config.keep_first.is_some(), Partial, "partial"),
        ("keep_last", config.keep_last.is_some(), Partial, "partial"),
        ("to", config.to.is_some(), TruncateDate, "truncate_date"),
    ]
    .into_iter()
    .filter(|(_, given, method, _)| *given && config.method != *method)
    .map(|(option, _, _, owner)| {
        Fault::new(format!("mask.{option}"), format!("`{option}` means something only `with: {owner}`"))
            .help("leave it out, or take another method")
    })
    .collect()
}

fn method(config: &config::Mask) -> Result<Mask, Vec<Fault>> {
    match config.method {
        MaskMethod::Hmac => hmac(config),
        MaskMethod::Redact => Ok(Mask::Redact(config.replacement.clone().unwrap_or_else(|| "***".into()))),
        MaskMethod::Partial => match (config.keep_first, config.keep_last) {
            (None, None) => Err(vec![
                Fault::new("mask.with", "partial needs keep_first or keep_last")
                    .help("to keep nothing, take redact or null"),
            ]),
            (first, last) => Ok(Mask::Partial { first: first.unwrap_or(0) as usize, last: last.unwrap_or(0) as usize }),
        },
        MaskMethod::Null => Ok(Mask::Null),
        MaskMethod::TruncateDate => config
            .to
            .map(Mask::TruncateDate)
            .ok_or_else(|| vec![Fault::new("mask.to", "truncate_date needs `to: month` or `to: year`")]),
    }
}

fn hmac(config: &config::Mask) -> Result<Mask, Vec<Fault>> {
    let mut faults = Vec::new();
    let domain = config.domain.as_deref().unwrap_or_default();
    if domain.is_empty() {
        faults.push(Fault::new("mask.domain", "hmac needs a domain").help(
            "its name, e.g. customer: equal values get equal pseudonyms inside one domain, and nothing joins across two",
        ));
    } else if domain.contains('\0') {
        faults.push(Fault::new("mask.domain", "a domain cannot have a zero byte"));
    }
    let key = config.key.as_deref().unwrap_or_default();
    if key.len() < MIN_KEY_BYTES {
        faults.push(
            Fault::new("mask.key", format!("the key has {} bytes; hmac needs {MIN_KEY_BYTES} or more", key.len()))
                .help("make one with `openssl rand -hex 32`, keep it outside the topology and refer to it: \"${MASK_KEY}\""),
        );
    }
    match Hmac::<Sha256>::new_from_slice(key.as_bytes()) {
        Ok(mut state) if faults.is_empty() => {
            state.update(domain.as_bytes());
            state.update(&[0]);
            Ok(Mask::Hmac { state: Box::new(state), prefix: format!("v{}:", config.key_version.unwrap_or(1)) })
        }
        _ => Err(faults),
    }
}

impl Transform for MaskColumns {
    fn bind(&self, scope: &mut Scope) -> Result<Box<dyn Step>, Fault> {
        let mut columns = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let index = scope.find(name, "mask.columns")?;
            if scope.is_key(index) && self.method != MaskMethod::Hmac {
                return Err(Fault::new(
                    "mask.columns",
                    format!("`{name}` is part of the key: masked like this, different rows would become one"),
                )
                .help("take `with: hmac`, which keeps different values different"));
            }
            let data_type = scope.data_type(index);
            let masked = self.mask.output(data_type).map_err(|message| {
                Fault::new("mask.columns", format!("`{name}` {message}"))
                    .help("take another method, or compute a date from it first")
            })?;
            columns.push(Target { index, data_type, key_part: scope.key.iter().position(|key| *key == index) });
            disclose(scope, index, &self.mask);
            let column = &mut scope.columns[index].column;
            column.data_type = masked;
            column.nullable |= matches!(self.mask, Mask::Null);
        }
        Ok(Box::new(Masked { mask: self.mask.clone(), columns }))
    }

    fn trace(&self, names: &mut Lineage, masked: &mut BTreeSet<String>) {
        for name in &self.names {
            match names.get(name) {
                Some(sources) => masked.extend(sources.iter().cloned()),
                None => {
                    masked.insert(name.clone());
                }
            }
        }
    }
}

/// Notes what the quarantine may show of the source columns behind a masked one.
fn disclose(scope: &mut Scope, index: usize, mask: &Mask) {
    let column = scope.columns[index].clone();
    match column.source {
        Some(source) => scope.disclosures[source].masks.push(mask.clone()),
        None => column.from.iter().for_each(|source| scope.disclosures[*source].hidden = true),
    }
}

impl Step for Masked {
    fn apply(&self, rows: &mut Rows, _context: &Context<'_>) -> Result<()> {
        for target in &self.columns {
            rows.columns[target.index] = self.mask.apply(&rows.columns[target.index], target.data_type);
            if let (Some(part), Some(old)) = (target.key_part, &mut rows.old_keys) {
                old[part] = self.mask.apply(&old[part], target.data_type);
            }
        }
        Ok(())
    }
}

impl Mask {
    /// The type of the masked column, or why a column of this type cannot be masked so.
    pub fn output(&self, data_type: Type) -> Result<Type, String> {
        match self {
            Self::Hmac { .. } | Self::Redact(_) | Self::Partial { .. } => Ok(Type::TEXT),
            Self::Null => Ok(data_type),
            Self::TruncateDate(_) => match data_type {
                Type::Date | Type::Timestamp | Type::TimestampTz => Ok(data_type),
                other => Err(format!("is {other}; truncate_date takes date, timestamp and timestamptz")),
            },
        }
    }

    /// Masks a column of that type; [`Mask::output`] has accepted it.
    pub fn apply(&self, array: &ArrayRef, data_type: Type) -> ArrayRef {
        match self {
            Self::Hmac { state, prefix } => pseudonyms(state, prefix, array, data_type),
            Self::Redact(replacement) => {
                let text = |row| array.is_valid(row).then_some(replacement.as_str());
                Arc::new((0..array.len()).map(text).collect::<StringArray>())
            }
            Self::Partial { first, last } => partial(*first, *last, array, data_type),
            Self::Null => new_null_array(array.data_type(), array.len()),
            Self::TruncateDate(part) => truncate(*part, array, data_type),
        }
    }
}

fn pseudonyms(state: &Hmac<Sha256>, prefix: &str, array: &ArrayRef, data_type: Type) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * (prefix.len() + 32));
    let (mut form, mut pseudonym) = (String::new(), String::new());
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
            continue;
        }
        form.clear();
        text::write_normal(array, data_type, row, &mut form);
        let mut keyed = state.clone();
        keyed.update(form.as_bytes());
        pseudonym.clear();
        pseudonym.push_str(prefix);
        for byte in &keyed.finalize().into_bytes()[..16] {
            // Writing to a String cannot fail.
            let _ = write!(pseudonym, "{byte:02x}");
        }
        out.append_value(&pseudonym);
    }
    Arc::new(out.finish())
}

/// Keeps characters at both ends when at least one between them is hidden; else hides all.
fn partial(first: usize, last: usize, array: &ArrayRef, data_type: Type) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 16);
    let (mut plain, mut masked) = (String::new(), String::new());
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
            continue;
        }
        plain.clear();
        masked.clear();
        text::write_value(array, data_type, row, &mut plain);
        let count = plain.chars().count();
        let hides = first.saturating_add(last) < count;
        masked.extend(
            plain.chars().enumerate().map(|(i, c)| if hides && (i < first || i >= count - last) { c } else { '*' }),
        );
        out.append_value(&masked);
    }
    Arc::new(out.finish())
}

fn truncate(part: DatePart, array: &ArrayRef, data_type: Type) -> ArrayRef {
    match data_type {
        Type::Date => {
            let cut = |day: i32| i32::try_from(first_day(part, i64::from(day))).unwrap_or(day);
            // The ends of the range stand for infinity.
            let cut = |day| if matches!(day, i32::MIN | i32::MAX) { day } else { cut(day) };
            Arc::new(array.as_primitive::<Date32Type>().unary::<_, Date32Type>(cut))
        }
        _ => {
            let cut = |micros: i64| first_day(part, micros.div_euclid(DAY_US)).saturating_mul(DAY_US);
            let cut = |micros| if matches!(micros, i64::MIN | i64::MAX) { micros } else { cut(micros) };
            let times = array.as_primitive::<TimestampMicrosecondType>();
            let cut = times.unary::<_, TimestampMicrosecondType>(cut);
            Arc::new(cut.with_data_type(times.data_type().clone()))
        }
    }
}

fn first_day(part: DatePart, day: i64) -> i64 {
    let (year, month, _) = text::civil(day);
    match part {
        DatePart::Month => text::days(year, month, 1),
        DatePart::Year => text::days(year, 1, 1),
    }
}
