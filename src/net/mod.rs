//! What connectors share towards the network.

#[cfg(feature = "s3")]
pub mod aws;
