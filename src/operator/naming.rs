//! The one rule that maps column names to what every warehouse accepts without quotes and without surprises:
//!
//! 1. lower case, and every character outside `[a-z0-9_]` becomes `_`;
//! 2. a name that begins with `_` or a digit gets a `c` in front (`_op` becomes `c_op`): names with `_` in front are ours;
//! 3. at most [`MAX_NAME_BYTES`] bytes: a longer name is cut, and a hash of the whole name follows;
//! 4. names that become equal get `_2`, `_3`, … Names from the topology (rename, compute, tags) come first, then the
//!    source's columns in their order: columns are only ever appended, so a name once given stays.
//!
//! The mapping stands in the contract, input beside output, and so can be read backwards.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

/// The longest name: Redshift's 127 bytes, less room for a suffix and for names made of it.
pub const MAX_NAME_BYTES: usize = 115;

/// Rules 1 to 3 for one name.
pub fn safe_name(name: &str) -> String {
    let mut safe = String::with_capacity(name.len() + 1);
    for character in name.chars().flat_map(char::to_lowercase) {
        safe.push(if character.is_ascii_alphanumeric() { character } else { '_' });
    }
    if !safe.starts_with(|first: char| first.is_ascii_lowercase()) {
        safe.insert(0, 'c');
    }
    if safe.len() > MAX_NAME_BYTES {
        let hash = Sha256::digest(name.as_bytes());
        safe.truncate(MAX_NAME_BYTES - 9);
        safe.push('_');
        safe.extend(
            hash[..4].iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|d| char::from_digit(d.into(), 16)),
        );
    }
    safe
}

/// Output names for columns in order; `(name, whether the topology gave it)`.
pub(super) fn output_names(columns: &[(&str, bool)]) -> Vec<String> {
    let mut names = vec![String::new(); columns.len()];
    let mut taken = BTreeSet::new();
    for given in [true, false] {
        for (index, (name, _)) in columns.iter().enumerate().filter(|(_, column)| column.1 == given) {
            let safe = safe_name(name);
            let mut candidate = safe.clone();
            let mut number = 2;
            while !taken.insert(candidate.clone()) {
                candidate = with_suffix(&safe, number);
                number += 1;
            }
            names[index] = candidate;
        }
    }
    names
}

fn with_suffix(safe: &str, number: usize) -> String {
    let suffix = format!("_{number}");
    let kept = safe.len().min(MAX_NAME_BYTES - suffix.len());
    format!("{}{suffix}", &safe[..kept])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_become_safe() {
        for (name, safe) in [
            ("id", "id"),
            ("customerId", "customerid"),
            ("_op", "c_op"),
            ("2nd line", "c2nd_line"),
            ("straße", "stra_e"),
            ("größe in €", "gr__e_in__"),
            ("", "c"),
        ] {
            assert_eq!(safe_name(name), safe);
        }
        let (a, b) = (format!("{}a", "x".repeat(200)), format!("{}b", "x".repeat(200)));
        assert_eq!(safe_name(&a).len(), MAX_NAME_BYTES);
        assert_ne!(safe_name(&a), safe_name(&b));
    }

    #[test]
    fn equal_names_get_numbers_and_the_topology_comes_first() {
        assert_eq!(output_names(&[("Net", false), ("net", true), ("NET", false)]), ["net_2", "net", "net_3"]);
        assert_eq!(output_names(&[("a b", false), ("a_b_2", false), ("a-b", false)]), ["a_b", "a_b_2", "a_b_3"]);
    }

    proptest! {
        #[test]
        fn names_are_unique_safe_and_stay(names in proptest::collection::vec("\\PC{0,12}", 1..12), cut in 0usize..12) {
            let columns: Vec<(&str, bool)> = names.iter().map(|n| (n.as_str(), false)).collect();
            let all = output_names(&columns);
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            for name in &all {
                prop_assert!(name.len() <= MAX_NAME_BYTES && name.starts_with(|c: char| c.is_ascii_lowercase()));
                prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            }
            // Appending columns renames nothing.
            let cut = cut.min(columns.len());
            prop_assert_eq!(&output_names(&columns[..cut])[..], &all[..cut]);
        }
    }
}
