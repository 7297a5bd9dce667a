//! What a warehouse that loads from an object store needs of the lake.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;

/// A place in the lake for files that the warehouse is about to load.
#[async_trait]
pub trait Staging: Send + Sync {
    /// The URL that an object of this name has.
    fn url(&self, name: &str) -> String;

    /// Puts an object, whose name nobody else uses.
    async fn put(&self, name: &str, body: Bytes) -> Result<()>;

    /// Lets go of objects, without waiting until they are removed: a load is done when it is committed, whatever the store
    /// says. What stays behind is swept when it is old.
    async fn discard(&self, names: &[String]);

    /// Waits until nothing is being removed any more.
    async fn settle(&self) {}
}
