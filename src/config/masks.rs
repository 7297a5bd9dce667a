//! Which fields go with which way of masking.

use super::rules::{Findings, column_list};
use super::topology::{Mask, MaskMethod};

/// The shortest key: as long as the hash's output.
const MIN_KEY_BYTES: usize = 32;

pub(super) fn check(found: &mut Findings<'_>, path: &str, mask: &Mask) {
    column_list(found, &format!("{path}.columns"), &mask.columns);
    foreign_fields(found, path, mask);
    match mask.method {
        MaskMethod::Hmac => hmac(found, path, mask),
        MaskMethod::Partial if mask.keep_first.unwrap_or(0) + mask.keep_last.unwrap_or(0) == 0 => {
            let help = "how many characters stay at the start or end; `with: redact` keeps none";
            found.key(path, "`partial` needs `keep_first` or `keep_last`", help);
        }
        MaskMethod::TruncateDate if mask.to.is_none() => {
            found.key(&format!("{path}.to"), "`truncate_date` needs `to`", "`to: month` or `to: year`");
        }
        _ => {}
    }
}

fn hmac(found: &mut Findings<'_>, path: &str, mask: &Mask) {
    match mask.key.as_deref() {
        None => {
            let help = "a secret of at least 32 bytes, as `${NAME}` or `file:…`";
            found.key(&format!("{path}.key"), "`hmac` needs a `key`", help);
        }
        Some(key) if key.len() < MIN_KEY_BYTES => {
            let message = format!("the key has {} bytes; at least {MIN_KEY_BYTES} are needed", key.len());
            found.value(&format!("{path}.key"), message, "`openssl rand -hex 32` makes a good one");
        }
        Some(_) => {}
    }
    if mask.domain.as_deref().is_none_or(str::is_empty) {
        let help = "equal values get equal pseudonyms inside a domain only, e.g. `domain: customer`";
        found.key(&format!("{path}.domain"), "`hmac` needs a `domain`", help);
    }
}

fn foreign_fields(found: &mut Findings<'_>, path: &str, mask: &Mask) {
    use MaskMethod::{Hmac, Partial, Redact, TruncateDate};
    let fields = [
        ("domain", mask.domain.is_some(), Hmac, "hmac"),
        ("key", mask.key.is_some(), Hmac, "hmac"),
        ("key_version", mask.key_version.is_some(), Hmac, "hmac"),
        ("replacement", mask.replacement.is_some(), Redact, "redact"),
        ("keep_first", mask.keep_first.is_some(), Partial, "partial"),
        ("keep_last", mask.keep_last.is_some(), Partial, "partial"),
        ("to", mask.to.is_some(), TruncateDate, "truncate_date"),
    ];
    for (field, given, method, word) in fields {
        if given && method != mask.method {
            let message = format!("`{field}` means nothing here");
            found.key(&format!("{path}.{field}"), message, format!("it belongs to `with: {word}`"));
        }
    }
}
