//! Files: every packing, following, rotation, truncation, and going on from the log.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dataflow::batch::RawBatch;
use dataflow::config::{Debezium, FileSource, Format};
use dataflow::error::{Error, ErrorKind, Result};
use dataflow::progress::{Advance, Partition, Progress, Standings};
use dataflow::source::file::Files;
use dataflow::source::{Polled, Source};

/// A log in memory with the real join-on rule.
#[derive(Default)]
pub struct Log(Mutex<Progress>);

impl Log {
    /// Commits a batch, as an epoch of its own would.
    pub fn commit(&self, batch: &RawBatch) {
        self.try_commit(batch).unwrap();
    }

    /// The same, when another process may have been quicker.
    pub fn try_commit(&self, batch: &RawBatch) -> Result<()> {
        let advance = Advance {
            partition: batch.partition.clone(),
            span: batch.span.clone(),
            generation: batch.generation,
            mark: None,
        };
        self.0.lock().unwrap().advance(&advance)
    }

    /// Where everything stands.
    pub fn progress(&self) -> Progress {
        self.0.lock().unwrap().clone()
    }

    /// Sets a standing by hand.
    pub fn set(&self, partition: Partition, standing: dataflow::progress::Standing) {
        self.0.lock().unwrap().set(partition, standing);
    }
}

#[async_trait]
impl Standings for Log {
    async fn latest(&self) -> Result<Progress> {
        Ok(self.progress())
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

struct Folder {
    dir: tempfile::TempDir,
    log: Arc<Log>,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), log: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), pack(name, text)).unwrap();
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(&pack(name, text)).unwrap();
    }

    async fn try_open(&self, path: &str, follow: bool) -> Result<Files> {
        let config = FileSource {
            path: self.path(path).to_str().unwrap().to_owned(),
            format: Format::DebeziumJson,
            debezium: Debezium::default(),
            stream: None,
            follow,
        };
        Files::open("files", &config, self.log.clone()).await
    }

    async fn open(&self, path: &str, follow: bool) -> Files {
        self.try_open(path, follow).await.unwrap()
    }

    /// Everything that is handed out until the source has caught up, committed batch by batch.
    async fn drain(&self, files: &mut Files) -> Vec<RawBatch> {
        let mut batches = Vec::new();
        loop {
            match next(files).await.unwrap() {
                Polled::Batch(batch) => {
                    self.log.commit(&batch);
                    batches.push(batch);
                }
                Polled::CaughtUp => return batches,
                other => panic!("a file source never says {other:?}"),
            }
        }
    }

    async fn read(&self, path: &str) -> Vec<String> {
        lines(&self.drain(&mut self.open(path, false).await).await)
    }
}

async fn next(files: &mut Files) -> Result<Polled> {
    tokio::time::timeout(PATIENCE, files.next()).await.expect("the source says something in time")
}

/// The next batch of a followed file, past announcements of having caught up.
async fn next_batch(files: &mut Files) -> RawBatch {
    loop {
        if let Polled::Batch(batch) = next(files).await.unwrap() {
            return batch;
        }
    }
}

async fn next_error(files: &mut Files) -> Error {
    loop {
        if let Err(error) = next(files).await {
            return error;
        }
    }
}

fn pack(name: &str, text: &str) -> Vec<u8> {
    match Path::new(name).extension().and_then(|e| e.to_str()) {
        Some("gz") => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        }
        Some("zst") => zstd::encode_all(text.as_bytes(), 1).unwrap(),
        _ => text.as_bytes().to_vec(),
    }
}

fn lines(batches: &[RawBatch]) -> Vec<String> {
    let values = batches.iter().flat_map(|b| b.records.iter()).map(|r| r.value().unwrap());
    values.map(|v| String::from_utf8(v.to_vec()).unwrap()).collect()
}

fn numbered(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{{\"n\":{n},\"filler\":\"{}\"}}\n", "x".repeat(n as usize % 50))).collect()
}

#[tokio::test]
async fn every_packing_gives_the_same_lines() {
    let text = numbered(0..30_000);
    let expected: Vec<&str> = text.lines().collect();
    for name in ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"] {
        let folder = Folder::new();
        // Two members or frames: appending to a packed file makes such.
        let half = text.len() / 2 + text[text.len() / 2..].find('\n').unwrap() + 1;
        folder.write(name, &text[..half]);
        folder.append(name, &text[half..]);
        let mut files = folder.open(name, false).await;
        let batches = folder.drain(&mut files).await;
        assert!(batches.len() >= 3, "{name}: {} batches", batches.len());
        assert_eq!(lines(&batches), expected, "{name}");
        for record in batches.iter().flat_map(|b| b.records.iter()) {
            let offset = record.offset() as usize;
            assert_eq!(&text.as_bytes()[offset..offset + record.value().unwrap().len()], record.value().unwrap());
        }
        let end = &batches.last().unwrap().span.to.0;
        assert!(end.starts_with(&format!("{}:", text.len())), "{name} ends at {end}");
        // The log knows that all was read.
        assert_eq!(folder.read(name).await, Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn blank_lines_are_covered_and_a_last_line_without_end_is_a_record() {
    let folder = Folder::new();
    folder.write("a.jsonl", "\u{feff}{\"n\":1}\r\n\n   \n{\"n\":2}");
    let batches = folder.drain(&mut folder.open("a.jsonl", false).await).await;
    assert_eq!(lines(&batches), ["{\"n\":1}", "{\"n\":2}"]);
    let offsets: Vec<u64> = batches[0].records.iter().map(|r| r.offset()).collect();
    assert_eq!(offsets, [0, 17]);
    folder.append("a.jsonl", "\n{\"n\":3}\n");
    assert_eq!(folder.read("a.jsonl").await, ["{\"n\":3}"]);
}

#[tokio::test]
async fn a_folder_or_a_glob_is_read_in_the_order_of_names_and_generations_grow() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("in/deep")).unwrap();
    folder.write("in/b.jsonl", "{\"b\":1}\n");
    folder.write("in/a.ndjson.gz", "{\"a\":1}\n");
    folder.write("in/c.txt", "no\n");
    folder.write("in/deep/d.jsonl", "{\"d\":1}\n");
    let batches = folder.drain(&mut folder.open("in", false).await).await;
    assert_eq!(lines(&batches), ["{\"a\":1}", "{\"b\":1}"]);
    assert!(batches[0].generation < batches[1].generation);
    assert!(batches[1].partition.name.starts_with("b.jsonl#"));
    folder.write("in/0.jsonl", "{\"late\":1}\n");
    let late = folder.drain(&mut folder.open("in", false).await).await;
    assert_eq!(lines(&late), ["{\"late\":1}"]);
    assert!(late[0].generation > batches[1].generation, "a later file's rows win");

    let other = Folder { dir: folder.dir, log: Arc::default() };
    assert_eq!(other.read("in/**/*.jsonl").await, ["{\"late\":1}", "{\"b\":1}", "{\"d\":1}"]);
    let fresh = Folder { dir: other.dir, log: Arc::default() };
    let error = fresh.try_open("in/*.parquet", false).await.err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::SourceRefused);
}

#[tokio::test]
async fn following_waits_for_whole_lines_and_picks_up_new_files() {
    let folder = Folder::new();
    fs::create_dir(folder.path("in")).unwrap();
    let mut files = folder.open("in", true).await;
    assert!(matches!(next(&mut files).await.unwrap(), Polled::CaughtUp));
    folder.append("in/a.jsonl", "{\"n\":1}\n{\"n\":");
    assert_eq!(lines(&[next_batch(&mut files).await]), ["{\"n\":1}"]);
    assert!(matches!(next(&mut files).await.unwrap(), Polled::CaughtUp));
    assert_eq!(files.lag()[0].behind, 5);
    folder.append("in/a.jsonl", "2}\n");
    assert_eq!(lines(&[next_batch(&mut files).await]), ["{\"n\":2}"]);
    folder.append("in/b.jsonl.gz", "{\"n\":3}\n");
    assert_eq!(lines(&[next_batch(&mut files).await]), ["{\"n\":3}"]);
    folder.append("in/b.jsonl.gz", "{\"n\":4}\n");
    assert_eq!(lines(&[next_batch(&mut files).await]), ["{\"n\":4}"]);
}

#[tokio::test]
async fn a_packed_file_that_is_still_written_waits_when_followed_and_is_refused_when_not() {
    for name in ["a.jsonl.gz", "a.jsonl.zst"] {
        let folder = Folder::new();
        let whole = pack(name, &numbered(0..50_000));
        fs::write(folder.path(name), &whole[..whole.len() / 2]).unwrap();
        let error = next_error(&mut folder.open(name, false).await).await;
        assert_eq!(*error.kind(), ErrorKind::SourceRefused, "{name}: {error}");
        assert!(error.to_string().contains("ends in the middle"), "{name}: {error}");

        let mut files = folder.open(name, true).await;
        let mut got = lines(&folder.drain(&mut files).await);
        fs::write(folder.path(name), &whole).unwrap();
        while got.len() < 50_000 {
            let batch = next_batch(&mut files).await;
            folder.log.commit(&batch);
            got.extend(lines(&[batch]));
        }
        assert_eq!(got.concat(), numbered(0..50_000).replace('\n', ""), "{name}");
    }
}

#[tokio::test]
async fn a_rotated_file_is_finished_before_the_new_one() {
    let folder = Folder::new();
    folder.write("a.jsonl", "{\"n\":1}\n");
    let mut files = folder.open("a.jsonl", true).await;
    let old = next_batch(&mut files).await;
    folder.log.commit(&old);
    folder.append("a.jsonl", "{\"n\":2}\n");
    fs::rename(folder.path("a.jsonl"), folder.path("a.jsonl.1")).unwrap();
    folder.append("a.jsonl.1", "{\"n\":3}\n");
    folder.write("a.jsonl", "{\"n\":4}\n");
    let mut batches = Vec::new();
    while lines(&batches).len() < 3 {
        let batch = next_batch(&mut files).await;
        folder.log.commit(&batch);
        batches.push(batch);
    }
    assert_eq!(lines(&batches), ["{\"n\":2}", "{\"n\":3}", "{\"n\":4}"]);
    let new = batches.last().unwrap();
    assert_ne!(new.partition, old.partition);
    assert!(new.generation > old.generation);
    assert_eq!(new.span.from.0, "0");
    // A writer that keeps the renamed file open a little longer loses nothing.
    folder.append("a.jsonl.1", "{\"n\":5}\n");
    let straggler = next_batch(&mut files).await;
    assert_eq!(
        (lines(std::slice::from_ref(&straggler)).concat(), &straggler.partition),
        ("{\"n\":5}".into(), &old.partition)
    );
}

#[tokio::test]
async fn rotation_while_the_process_is_down_is_noticed_also_by_copy_and_truncate() {
    for (kept, by_copy) in [("a.jsonl.1", false), ("a.jsonl.1.gz", false), ("a.jsonl-20261122", true)] {
        let folder = Folder::new();
        folder.write("a.jsonl", "{\"n\":1}\n");
        assert_eq!(folder.read("a.jsonl").await, ["{\"n\":1}"]);
        folder.append("a.jsonl", "{\"n\":2}\n");
        if by_copy {
            fs::copy(folder.path("a.jsonl"), folder.path(kept)).unwrap();
        } else {
            let text = fs::read_to_string(folder.path("a.jsonl")).unwrap();
            fs::rename(folder.path("a.jsonl"), folder.path("aside")).unwrap();
            folder.write(kept, &text);
        }
        folder.write("a.jsonl", "{\"n\":3}\n{\"n\":4}\n{\"n\":5}\n");
        assert_eq!(folder.read("a.jsonl").await, ["{\"n\":2}", "{\"n\":3}", "{\"n\":4}", "{\"n\":5}"], "{kept}");
        assert_eq!(folder.read("a.jsonl").await, Vec::<String>::new(), "{kept}");
    }
}

#[tokio::test]
async fn a_deleted_file_is_read_to_its_end_while_it_is_open() {
    let folder = Folder::new();
    folder.write("a.jsonl", "{\"n\":1}\n");
    let mut files = folder.open("a.jsonl", true).await;
    folder.log.commit(&next_batch(&mut files).await);
    folder.append("a.jsonl", "{\"n\":2}\n");
    fs::remove_file(folder.path("a.jsonl")).unwrap();
    let rest = next_batch(&mut files).await;
    assert_eq!(lines(std::slice::from_ref(&rest)), ["{\"n\":2}"]);
    folder.log.commit(&rest);
    files.release(&folder.log.progress()).await.unwrap();
    folder.write("a.jsonl", "{\"n\":3}\n");
    assert_eq!(lines(&[next_batch(&mut files).await]), ["{\"n\":3}"]);
}

#[tokio::test]
async fn truncation_and_rewriting_halt_with_an_instruction() {
    type Damage = fn(&Folder);
    let cases: [(&str, Damage); 3] = [
        ("shorter", |f| OpenOptions::new().write(true).open(f.path("a.jsonl")).unwrap().set_len(8).unwrap()),
        ("emptied", |f| OpenOptions::new().write(true).open(f.path("a.jsonl")).unwrap().set_len(0).unwrap()),
        ("rewritten", |f| {
            let mut file = OpenOptions::new().write(true).open(f.path("a.jsonl")).unwrap();
            file.write_all(b"{\"n\":1}\n{\"n\":9}\n{\"n\":3}\n").unwrap();
        }),
    ];
    for (case, damage) in cases {
        // Noticed by a process that starts, and by one that runs.
        let folder = Folder::new();
        folder.write("a.jsonl", "{\"n\":1}\n{\"n\":2}\n");
        let mut running = folder.open("a.jsonl", true).await;
        folder.drain(&mut running).await;
        damage(&folder);
        let error = next_error(&mut running).await;
        assert_eq!(*error.kind(), ErrorKind::PositionLost, "{case}: {error}");
        assert!(error.to_string().contains("truncated or rewritten"), "{case}: {error}");
        let error = folder.try_open("a.jsonl", true).await.err().unwrap();
        assert_eq!(*error.kind(), ErrorKind::PositionLost, "{case}: {error}");
    }
}

#[tokio::test]
async fn a_copied_file_goes_on_and_a_new_file_with_the_same_first_line_does_not() {
    let folder = Folder::new();
    folder.write("a.jsonl", "{\"head\":0}\n{\"n\":1}\n");
    folder.read("a.jsonl").await;
    // Restored from a backup: another inode, the same bytes.
    fs::copy(folder.path("a.jsonl"), folder.path("copy")).unwrap();
    fs::rename(folder.path("copy"), folder.path("a.jsonl")).unwrap();
    folder.append("a.jsonl", "{\"n\":2}\n");
    assert_eq!(folder.read("a.jsonl").await, ["{\"n\":2}"]);
    // Rotated: another inode, the same first line, other bytes.
    fs::rename(folder.path("a.jsonl"), folder.path("a.jsonl.1")).unwrap();
    folder.write("a.jsonl", "{\"head\":0}\n{\"n\":3}\n");
    assert_eq!(folder.read("a.jsonl").await, ["{\"head\":0}", "{\"n\":3}"]);
}

#[tokio::test]
async fn a_dropped_future_loses_nothing_and_rewinding_hands_out_again() {
    let folder = Folder::new();
    let text = numbered(0..40_000);
    folder.write("a.jsonl", &text);
    let mut files = folder.open("a.jsonl", false).await;
    let mut got = Vec::new();
    loop {
        // Polled once and dropped: the read goes on in the background.
        let polled = match futures::FutureExt::now_or_never(files.next()) {
            Some(polled) => polled,
            None => next(&mut files).await,
        };
        match polled.unwrap() {
            Polled::Batch(batch) if got.is_empty() => {
                folder.log.commit(&batch);
                got.push(batch);
            }
            Polled::Batch(batch) => got.push(batch),
            Polled::CaughtUp => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(got.len() > 2, "several batches are needed to test anything");
    assert_eq!(lines(&got), text.lines().collect::<Vec<_>>());
    files.rewind(&folder.log.progress()).await.unwrap();
    let again = folder.drain(&mut files).await;
    assert_eq!(lines(&again), lines(&got[1..]));
}
