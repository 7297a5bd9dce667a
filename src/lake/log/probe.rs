//! The proof that exactly-once stands on: a second create of the same name is refused.

use bytes::Bytes;
use ulid::Ulid;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::store::{Created, Store};

/// Where objects stand that only try the store out. What a crash leaves there is swept.
pub(in crate::lake) const PROBES: &str = "_log/probe";

/// Creates an object twice. A store that takes the second one, or shows other bytes, is [`ErrorKind::StoreBroken`].
pub(super) async fn prove_put_if_absent(store: &Store) -> Result<()> {
    let path = format!("{PROBES}/{}", Ulid::new());
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    store.create_own("log.probe", &path, first.clone()).await.map_err(|error| error.doing("try the lake's store"))?;
    let again = store.create("log.probe", &path, second).await;
    let found = store.get(&path).await?.map(|(body, _)| body);
    store.delete(&path).await?;
    let broken = |why: &str| {
        Error::new(ErrorKind::StoreBroken, format!("the store of {} {why}", store.url())).help(
            "exactly-once needs a store that refuses to overwrite (If-None-Match: * on put): use Amazon S3, a store that \
             supports conditional writes, or a local folder",
        )
    };
    match again {
        Created::Yes => Err(broken("took a second create of the same object")),
        Created::Unknown(error) => Err(error.doing("try whether the lake's store refuses to overwrite")),
        Created::Exists if found.as_ref() != Some(&first) => Err(broken("says that it refuses to overwrite, and does")),
        Created::Exists => Ok(()),
    }
}
