//! What connectors share towards the network.

pub mod arn;
#[cfg(feature = "s3")]
pub mod aws;
