//! A cluster: the emulator in front of a database of its own, and the S3 server that both it and the lake speak to.

#![cfg(all(feature = "redshift", feature = "postgres"))]
#![allow(dead_code, reason = "a tool box")]

use dataflow::config;
use redshift_sim::{Options, S3, Sim};

use super::postgres;
use super::s3::{ACCESS_KEY, S3Server, SECRET_KEY};

/// A running emulator and its S3.
pub struct Cluster {
    pub sim: Sim,
    pub s3: S3Server,
    /// The database behind the emulator.
    pub postgres_url: String,
}

impl Cluster {
    /// Starts one, which is `Options::new` with the changes of `with`.
    pub async fn start_with(with: impl FnOnce(Options) -> Options) -> Self {
        let s3 = S3Server::start().await;
        let postgres_url = postgres::server().database().await;
        let store = S3 {
            endpoint: s3.endpoint.clone(),
            region: "eu-west-3".into(),
            access_key_id: ACCESS_KEY.into(),
            secret_access_key: SECRET_KEY.into(),
        };
        let options = with(Options { s3: store, ..Options::new(&postgres_url) });
        Self { sim: Sim::start(options).await.unwrap(), s3, postgres_url }
    }

    /// Starts one.
    pub async fn start() -> Self {
        Self::start_with(|options| options).await
    }

    /// The warehouse of a topology.
    pub fn warehouse(&self) -> config::RedshiftWarehouse {
        config::RedshiftWarehouse {
            url: format!("{}?sslmode=disable", self.sim.url()),
            schema: "public".into(),
            views: "bi".into(),
            iam_role: "arn:aws:iam::123456789012:role/dataflow-copy".into(),
            root_certificate: None,
            auth: None,
            statement_timeout: config::Span::seconds(300),
            file_bytes: config::Bytes(32 << 20),
            query_group: None,
            transport: config::RedshiftTransport::Connection,
        }
    }

    /// The same, through the Data API.
    pub fn through_data_api(&self) -> config::RedshiftWarehouse {
        let auth = config::RedshiftAuth {
            cluster: Some("acme".into()),
            region: Some("eu-west-3".into()),
            access_key_id: Some("AKIATESTTESTTESTTEST".into()),
            secret_access_key: Some(SECRET_KEY.into()),
            endpoint: Some(self.sim.data_api_endpoint()),
            ..config::RedshiftAuth::default()
        };
        config::RedshiftWarehouse {
            url: "redshift:///dev".into(),
            auth: Some(Box::new(auth)),
            transport: config::RedshiftTransport::DataApi,
            ..self.warehouse()
        }
    }

    /// Its lake.
    pub fn lake(&self) -> config::Lake {
        self.s3.lake("lake")
    }
}
