//! Files into S3: as the lake and the loads put them, beside a bare put of the same bytes.
//!
//! `cargo bench --bench upload`. Both sides put the same files, so many at the same time, to the S3 protocol server of the
//! tests, in turns, so that what the machine does besides hits both. Ours is what a sealed file and a staged one go through:
//! the CRC that the manifest bears, a checksum that the store verifies instead of a signature over the body, put-if-absent, and
//! the loop that reads an ambiguous answer back. A bare put is the plain client of the `object_store` crate: signed, and
//! nothing else; and once more with the body left out of the signature, which is the least that can be sent. Before anything is
//! timed, the objects must be the files. The server runs in this process and takes most of the time: on a network of its own
//! the ratio is nearer to one.
//!
//! `BENCH_FILES`, `BENCH_FILE_BYTES` and `BENCH_ROUNDS` change the size (32, 8388608 and 9).

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[allow(dead_code, reason = "a tool box")]
#[path = "../tests/it/support/s3.rs"]
mod s3;

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataflow::lake::Lake;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStoreExt};

use s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

/// The process's allocator, for both.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Files on their way at the same time, as an epoch's are.
const AT_ONCE: usize = 8;

fn size(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

/// Files that no compression makes smaller, the same in every run.
fn files(count: usize, bytes: usize) -> Vec<Bytes> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut file = || (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect::<Vec<u8>>();
    (0..count).map(|_| Bytes::from(file())).collect()
}

fn bare(server: &S3Server, unsigned: bool) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_endpoint(&server.endpoint)
        .with_region("eu-west-3")
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_unsigned_payload(unsigned)
        .build()
        .unwrap()
}

/// Ours.
async fn seal(lake: &Lake, folder: &str, files: &[Bytes]) {
    let put = |(number, body): (usize, &Bytes)| {
        let (name, body) = (format!("{folder}/{number}.parquet"), body.clone());
        async move {
            black_box(crc32fast::hash(&body));
            lake.put_staged(&name, body).await
        }
    };
    let puts = futures::stream::iter(files.iter().enumerate().map(put).collect::<Vec<_>>());
    puts.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.unwrap();
}

/// The same bytes, put.
async fn put(store: &AmazonS3, folder: &str, files: &[Bytes]) {
    let put = |(number, body): (usize, &Bytes)| {
        let (name, body) = (Path::from(format!("bare/{folder}/{number}.parquet")), body.clone());
        async move { store.put(&name, body.into()).await }
    };
    let puts = futures::stream::iter(files.iter().enumerate().map(put).collect::<Vec<_>>());
    puts.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await.unwrap();
}

fn assert_same(server: &S3Server, folder: &str, files: &[Bytes]) {
    for (number, body) in files.iter().enumerate() {
        let object = std::fs::read(server.folder().join(folder).join(format!("{number}.parquet"))).unwrap();
        assert!(object == body[..], "{folder}/{number}.parquet is another file");
    }
}

async fn time(run: impl Future<Output = ()>) -> Duration {
    let start = Instant::now();
    run.await;
    start.elapsed()
}

#[tokio::main]
async fn main() {
    let (count, bytes, rounds) = (size("BENCH_FILES", 32), size("BENCH_FILE_BYTES", 8 << 20), size("BENCH_ROUNDS", 9));
    let server = S3Server::start().await;
    let lake = Lake::open(&server.lake("ours")).unwrap();
    let (signed, unsigned) = (bare(&server, false), bare(&server, true));
    let files = files(count, bytes);
    seal(&lake, "first", &files).await;
    put(&signed, "first", &files).await;
    assert_same(&server, "ours/_stage/first", &files);
    assert_same(&server, "bare/first", &files);

    // In turns, the best of each; what a round has put is taken away before the next.
    let mut best = [Duration::MAX; 3];
    for round in 0..rounds {
        let names = ["a", "b"].map(|name| format!("{round}{name}"));
        let turn = [
            time(seal(&lake, &names[0], &files)).await,
            time(put(&signed, &names[0], &files)).await,
            time(put(&unsigned, &names[1], &files)).await,
        ];
        best = std::array::from_fn(|at| best[at].min(turn[at]));
        for folder in ["ours", "bare"] {
            std::fs::remove_dir_all(server.folder().join(folder)).unwrap();
        }
        server.asked();
    }
    let megabytes = (count * bytes) as f64 / 1e6;
    let rate = best.map(|time| megabytes / time.as_secs_f64());
    println!("{count} files of {bytes} bytes, {AT_ONCE} at a time, best of {rounds}; the objects are the files");
    println!("ours:                                {:>8.1} MB/s", rate[0]);
    println!("bare put:                            {:>8.1} MB/s", rate[1]);
    println!("bare put, the body not signed:       {:>8.1} MB/s", rate[2]);
    println!("ratio to the bare put:               {:>8.2} (at least 0.9 wanted)", rate[0] / rate[1]);
    println!("ratio to the one that is not signed: {:>8.2}", rate[0] / rate[2]);
}
