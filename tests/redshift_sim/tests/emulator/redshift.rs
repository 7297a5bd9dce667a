//! An emulated Redshift with S3 beside it, and a client that speaks the simple protocol.

use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use redshift_sim::{Options, S3, Sim};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::servers::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY, database};

/// The role that COPY may name.
pub const ROLE: &str = "arn:aws:iam::123456789012:role/dataflow-copy";

/// Rows, each value as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// An emulator with its S3.
pub struct Redshift {
    pub sim: Sim,
    pub s3: S3Server,
}

impl Redshift {
    /// The usual.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With other options.
    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let s3 = S3Server::start().await;
        let mut options = Options {
            s3: S3 {
                endpoint: s3.endpoint.clone(),
                region: "eu-west-3".into(),
                access_key_id: ACCESS_KEY.into(),
                secret_access_key: SECRET_KEY.into(),
            },
            ..Options::new(database())
        };
        change(&mut options);
        Self { sim: Sim::start(options).await.unwrap(), s3 }
    }

    /// A session of the first user.
    pub async fn connect(&self) -> Session {
        Session::connect(&self.sim.url()).await.unwrap()
    }

    /// Puts a Parquet file, unpacked, into the bucket; its URL.
    pub fn put(&self, key: &str, batch: &RecordBatch) -> String {
        self.put_packed(key, batch, Compression::SNAPPY)
    }

    pub fn put_packed(&self, key: &str, batch: &RecordBatch, compression: Compression) -> String {
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        self.put_bytes(key, &writer.into_inner().unwrap())
    }

    pub fn put_bytes(&self, key: &str, bytes: &[u8]) -> String {
        let path = self.s3.folder().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        format!("s3://{BUCKET}/{key}")
    }

    /// Puts a manifest of files that are there; its URL.
    pub fn manifest(&self, key: &str, urls: &[&str]) -> String {
        let entry = |url: &&str| {
            let path = self.s3.folder().join(url.strip_prefix(&format!("s3://{BUCKET}/")).unwrap());
            let length = std::fs::metadata(path).map_or(0, |file| file.len());
            serde_json::json!({"url": url, "mandatory": true, "meta": {"content_length": length}})
        };
        let entries: Vec<_> = urls.iter().map(entry).collect();
        self.put_bytes(key, serde_json::json!({ "entries": entries }).to_string().as_bytes())
    }

    /// Puts one batch with its manifest, and the COPY that loads it.
    pub fn staged(&self, name: &str, batch: &RecordBatch, into: &str) -> String {
        let file = self.put(&format!("{name}.parquet"), batch);
        let manifest = self.manifest(&format!("{name}.manifest"), &[&file]);
        copy(into, &manifest)
    }
}

/// COPY of a manifest.
pub fn copy(into: &str, manifest: &str) -> String {
    format!("COPY {into} FROM '{manifest}' IAM_ROLE '{ROLE}' MANIFEST FORMAT AS PARQUET SERIALIZETOJSON STATUPDATE OFF")
}

/// What went wrong: SQLSTATE, message, detail. All empty if the connection went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    pub code: String,
    pub message: String,
    pub detail: String,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        error.as_db_error().map_or_else(Self::default, |e| Self {
            code: e.code().code().to_owned(),
            message: e.message().to_owned(),
            detail: e.detail().unwrap_or_default().to_owned(),
        })
    }
}

/// A session; it ends with the value.
#[derive(Clone)]
pub struct Session {
    client: Arc<tokio_postgres::Client>,
}

impl Session {
    pub async fn connect(url: &str) -> Result<Self, Failure> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        Ok(Self { client: Arc::new(client) })
    }

    /// Runs one message of the simple protocol; its rows.
    pub async fn run(&self, sql: &str) -> Result<Rows, Failure> {
        let answers = self.client.simple_query(sql).await?;
        let row = |answer| match answer {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(row).collect())
    }

    /// Rows of a query that works, one text each: values joined by `|`, NULL as `~`.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let rows = self.run(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let text =
            |row: &Vec<Option<String>>| row.iter().map(|v| v.as_deref().unwrap_or("~")).collect::<Vec<_>>().join("|");
        rows.iter().map(text).collect()
    }

    /// The names of the columns that a query gives.
    pub async fn columns(&self, sql: &str) -> Vec<String> {
        let answers = self.client.simple_query(sql).await.unwrap();
        let described = answers.into_iter().find_map(|answer| match answer {
            SimpleQueryMessage::RowDescription(columns) => Some(columns),
            _ => None,
        });
        described.unwrap().iter().map(|column| column.name().to_owned()).collect()
    }

    /// Statements that work, one after another.
    pub async fn all(&self, statements: &[&str]) {
        for sql in statements {
            self.rows(sql).await;
        }
    }

    /// A statement that is refused.
    pub async fn refused(&self, sql: &str) -> Failure {
        match self.run(sql).await {
            Ok(rows) => panic!("{sql} was taken: {rows:?}"),
            Err(failure) => failure,
        }
    }
}
