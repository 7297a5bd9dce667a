//! Payloads at rest: AES-256-GCM under a key of the file's own.
//!
//! The file's key is HMAC-SHA256(configured key, file's salt). One file holds far fewer than 2^32 values, so random
//! nonces are safe however long the configured key lives. A value's place (zone, partition, offset, column) is
//! authenticated with it: a value moved elsewhere does not open.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, Generate, Key, KeyInit, Nonce, Payload};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::error::{Error, ErrorKind, Result};

/// Bytes of the nonce in front of every sealed value.
const NONCE_BYTES: usize = 12;

/// The key that a topology configures.
#[derive(Clone)]
pub(super) struct MasterKey([u8; 32]);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// Reads 64 hexadecimal digits; `setting` is where they stand in the topology.
    pub fn from_hex(setting: &str, text: &str) -> Result<Self> {
        let text = text.trim();
        let mut key = [0u8; 32];
        let well_formed = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !well_formed {
            return Err(Error::new(ErrorKind::Config, format!("{setting} is not 64 hexadecimal digits"))
                .help("make one with `openssl rand -hex 32`"));
        }
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |b: u8| (b as char).to_digit(16).unwrap_or_default() as u8;
            *byte = digit(pair[0]) << 4 | digit(pair[1]);
        }
        Ok(Self(key))
    }

    /// The key of the file with that salt.
    pub fn for_file(&self, salt: &str) -> FileKey {
        // HMAC fills a key up to its block of 64 bytes with zeros.
        let mut block = [0u8; 64];
        block[..32].copy_from_slice(&self.0);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(b"dataflow file key\0");
        mac.update(salt.as_bytes());
        let key: [u8; 32] = mac.finalize().into_bytes().into();
        FileKey(Aes256Gcm::new(&Key::<Aes256Gcm>::from(key)))
    }
}

/// The key of one file.
pub(super) struct FileKey(Aes256Gcm);

impl FileKey {
    /// Nonce, ciphertext and tag of `plain`, bound to `place`.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let nonce = Nonce::<Aes256Gcm>::generate();
        let sealed = self
            .0
            .encrypt(&nonce, Payload { msg: plain, aad: place.as_bytes() })
            .map_err(|_| Error::new(ErrorKind::Internal, "a payload is too large to be encrypted"))?;
        let mut out = Vec::with_capacity(NONCE_BYTES + sealed.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// The reverse of [`FileKey::seal`]; `None` when the key, the place or the bytes are not the same.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::<Aes256Gcm>::try_from(nonce).ok()?;
        self.0.decrypt(&nonce, Payload { msg: body, aad: place.as_bytes() }).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_the_same_key_salt_place_and_bytes() {
        let key = MasterKey::from_hex("k", &"0a".repeat(32)).unwrap();
        let file = key.for_file("salt");
        let sealed = file.seal("p/1/value", b"secret").unwrap();
        assert_eq!(file.open("p/1/value", &sealed).as_deref(), Some(&b"secret"[..]));
        assert_ne!(sealed, file.seal("p/1/value", b"secret").unwrap(), "the nonce must be fresh");
        assert!(file.open("p/2/value", &sealed).is_none());
        assert!(key.for_file("other").open("p/1/value", &sealed).is_none());
        let other = MasterKey::from_hex("k", &"0b".repeat(32)).unwrap();
        assert!(other.for_file("salt").open("p/1/value", &sealed).is_none());
        let mut bent = sealed.clone();
        *bent.last_mut().unwrap() ^= 1;
        assert!(file.open("p/1/value", &bent).is_none());
        assert!(file.open("p/1/value", &sealed[..5]).is_none());
    }

    #[test]
    fn a_short_key_is_refused() {
        let error = MasterKey::from_hex("lake.raw.key", "abc").unwrap_err();
        assert!(error.to_string().contains("lake.raw.key"));
    }
}
