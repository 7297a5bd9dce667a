//! What describes a raw file's records and came in an earlier one: kept in what the file says of itself, so that the file
//! can be read without those before it.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::{FileKey, other_key};
use crate::batch::ReadBy;
use crate::epoch::DataFile;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::unreadable;

/// The entry's name.
pub(super) const NAME: &str = "dataflow.recalled";
/// What is authenticated with it when it is encrypted.
const PLACE: &str = "recalled";

/// Descriptions by partition.
pub(super) type Recalled = BTreeMap<String, Vec<Arc<[u8]>>>;

/// Collects what a file needs and does not hold.
#[derive(Default)]
pub(super) struct Recall {
    texts: Recalled,
    /// The numbers that no description is missing for any more.
    known: BTreeMap<String, HashSet<u64>>,
}

impl Recall {
    /// Records of the partition are read by that.
    pub fn note(&mut self, partition: &str, read_by: &ReadBy) {
        if read_by.earlier.is_empty() && read_by.own.is_empty() {
            return;
        }
        let known = self.known.entry(partition.to_owned()).or_default();
        for (id, text) in &read_by.earlier {
            if known.insert(*id) {
                self.texts.entry(partition.to_owned()).or_default().push(Arc::clone(text));
            }
        }
        known.extend(&read_by.own);
    }

    /// The entry, encrypted when the file is; `None` when nothing is missing.
    pub fn entry(&self, key: Option<&FileKey>) -> Result<Option<String>> {
        if self.texts.is_empty() {
            return Ok(None);
        }
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Internal, "keep what describes raw records").because(error.to_string())
        };
        let mut texts = BTreeMap::new();
        for (partition, of) in &self.texts {
            let of: Result<Vec<&str>, _> = of.iter().map(|text| std::str::from_utf8(text)).collect();
            texts.insert(partition, of.map_err(|error| failed(&error))?);
        }
        let json = serde_json::to_vec(&texts).map_err(|error| failed(&error))?;
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
        let packed = packed.write_all(&json).and_then(|()| packed.finish()).map_err(|error| failed(&error))?;
        Ok(Some(BASE64.encode(key.map_or(Ok(packed.clone()), |key| key.seal(PLACE, &packed))?)))
    }
}

/// The reverse.
pub(super) fn read(file: &DataFile, entry: &str, key: Option<&FileKey>) -> Result<Recalled> {
    let mut packed = BASE64.decode(entry).map_err(|error| unreadable(file, error))?;
    if let Some(key) = key {
        packed = key.open(PLACE, &packed).ok_or_else(|| other_key(file))?;
    }
    let mut json = Vec::new();
    ZlibDecoder::new(packed.as_slice()).read_to_end(&mut json).map_err(|error| unreadable(file, error))?;
    let texts: BTreeMap<String, Vec<String>> =
        serde_json::from_slice(&json).map_err(|error| unreadable(file, error))?;
    let shared = |texts: Vec<String>| texts.into_iter().map(|text| Arc::from(text.into_bytes())).collect();
    Ok(texts.into_iter().map(|(partition, texts)| (partition, shared(texts))).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_describes_itself_is_not_recalled() {
        let text = |text: &str| Arc::<[u8]>::from(text.as_bytes());
        let mut recall = Recall::default();
        recall.note("shop:a", &ReadBy { earlier: vec![(1, text("one"))], own: vec![2] });
        assert_eq!(recall.texts, BTreeMap::from([("shop:a".to_owned(), vec![text("one")])]));
        // A later batch of the same file, for which those came earlier; another partition knows nothing of that.
        let later = ReadBy { earlier: vec![(1, text("one")), (2, text("two"))], own: vec![3] };
        recall.note("shop:a", &later);
        recall.note("shop:b", &ReadBy { earlier: vec![(2, text("two"))], own: Vec::new() });
        // Read by an earlier description before it was described anew.
        recall.note("shop:b", &ReadBy { earlier: vec![(4, text("four"))], own: vec![4] });
        let wanted = BTreeMap::from([
            ("shop:a".to_owned(), vec![text("one")]),
            ("shop:b".to_owned(), vec![text("two"), text("four")]),
        ]);
        assert_eq!(recall.texts, wanted);
    }
}
