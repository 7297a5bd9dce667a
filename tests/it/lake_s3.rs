//! What only S3 does: requests that must be slowed down, uploads in parts, encryption, and the policy of the lake's role.

use serde_json::Value;

use super::*;
use crate::support::s3::{Asked, BUCKET};

/// Raw records of so many MiB that do not compress.
fn large_batch(mib: usize) -> RawBatch {
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    };
    let mut payload: Vec<u8> = (0..1 << 17).flat_map(|_| noise()).collect();
    let mut records = RawRecords::default();
    for offset in 0..mib as u64 {
        payload[..8].copy_from_slice(&offset.to_be_bytes());
        records.push(offset, NO_TIME, None, Some(&payload));
    }
    let span = Span { from: Position::offset(0), to: Position::offset(mib as u64) };
    RawBatch { span, records, ..raw_batch() }
}

fn parts(asked: &[Asked]) -> usize {
    asked.iter().filter(|asked| asked.query.contains("partNumber=")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_up_in_parts_whatever_fails_in_between() {
    let server = S3Server::start().await;
    let raw = config::Raw { keep: config::RawKeep::Plain, retention: None, archive_after: None, key: None };
    let lake = Lake::open(&config::Lake { raw: Some(raw), ..server.lake("sales") }).unwrap();
    let batch = large_batch(70);
    for broken_end in [false, true] {
        let mut writer = EpochWriter::begin(&lake);
        writer.raw(&batch).unwrap();
        server.asked();
        if broken_end {
            // The end of the upload is done, and every answer lost, until the client gives up and looks.
            server.fault_unless(Fault::AnswerLost, "POST", "raw/", "uploads");
        } else {
            // A part is sent again, also when it was there already.
            server.fault(Fault::SlowDown, "PUT", "raw/", 2);
            server.fault(Fault::AnswerLost, "PUT", "raw/", 2);
        }
        let file = writer.finish().await;
        server.heal();
        let file = file.unwrap().raw.unwrap();
        let asked = server.asked();
        assert!(parts(&asked) >= 5, "{} parts", parts(&asked));
        assert!(asked.iter().all(|asked| asked.bytes <= 17 << 20), "a request is larger than a part");
        let back = lake.read_raw(&file).await.unwrap();
        assert_eq!(back.iter().map(|batch| batch.records.len()).sum::<usize>(), 70);
    }
}

#[tokio::test]
async fn requests_that_the_store_slows_down_come_through() {
    let server = S3Server::start().await;
    let lake = Lake::open(&server.lake("sales")).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let contract = contract("orders", &orders());
    server.fault(Fault::SlowDown, "PUT", "processed/", 4);
    server.fault(Fault::SlowDown, "PUT", "_log/0000", 4);
    server.fault(Fault::SlowDown, "GET", "_log/0000", 4);
    let committed = log.commit(seal(&lake, &contract, "0", 0, 10).await, &same).await.unwrap();
    log.refresh().await.unwrap();
    assert_eq!((committed.n, server.heal()), (1, 0));
    let names: Vec<_> = std::fs::read_dir(server.folder().join("sales/_log")).unwrap().collect();
    assert!(names.len() >= 2);
}

#[tokio::test]
async fn every_object_is_encrypted_with_the_key_and_sent_with_its_checksum() {
    let server = S3Server::start().await;
    let sse = config::Sse { kms_key: "arn:aws:kms:eu-west-3:1:key/k".into(), bucket_key: true };
    let lake = Lake::open(&config::Lake { sse: Some(sse), ..server.lake("sales") }).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let contract = contract("orders", &orders());
    log.commit(seal(&lake, &contract, "0", 0, 10).await, &same).await.unwrap();
    let made: Vec<Asked> = server.asked().into_iter().filter(|asked| asked.method == "PUT").collect();
    assert!(made.len() >= 4, "probe, identity, file and manifest");
    for asked in made {
        let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("x-amz-server-side-encryption").as_deref(), Some("aws:kms"), "{}", asked.path);
        let key = header("x-amz-server-side-encryption-aws-kms-key-id");
        assert_eq!(key.as_deref(), Some("arn:aws:kms:eu-west-3:1:key/k"));
        assert_eq!(header("x-amz-server-side-encryption-bucket-key-enabled").as_deref(), Some("true"));
        assert!(header("x-amz-checksum-sha256").is_some());
        assert_eq!(header("x-amz-content-sha256").as_deref(), Some("UNSIGNED-PAYLOAD"));
        let signed = header("authorization").unwrap();
        assert!(signed.contains(";x-amz-checksum-sha256;"), "{signed}");
        assert_eq!(header("if-none-match").as_deref(), Some("*"));
    }
}

#[tokio::test]
async fn a_body_that_is_damaged_on_its_way_is_refused_and_sent_again() {
    let server = S3Server::start().await;
    let lake = Lake::open(&server.lake("sales")).unwrap();
    server.fault(Fault::Damaged, "PUT", "whole", 2);
    lake.put_staged("whole", "as it was".into()).await.unwrap();
    let sent = server.asked().iter().filter(|asked| asked.method == "PUT").count();
    assert_eq!((sent, server.heal()), (3, 0));
    assert_eq!(std::fs::read(server.folder().join("sales/_stage/whole")).unwrap(), b"as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_in_parts_and_copies_to_the_archive_are_encrypted_with_the_key() {
    let server = S3Server::start().await;
    let key = "arn:aws:kms:eu-west-3:1:key/k";
    let sse = config::Sse { kms_key: key.into(), bucket_key: true };
    let day = Some(config::Span::seconds(24 * 3600));
    let raw = config::Raw { keep: config::RawKeep::Plain, retention: None, archive_after: day, key: None };
    let lake = Lake::open(&config::Lake { sse: Some(sse), raw: Some(raw), ..server.lake("sales") }).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    lake.put_staged("large", bytes::Bytes::from(vec![7; (64 << 20) + 1])).await.unwrap();
    std::fs::create_dir_all(server.folder().join("sales/raw")).unwrap();
    std::fs::write(server.folder().join("sales/raw/old.parquet"), "raw").unwrap();
    let swept = sweep_as_of(&log, chrono::Utc::now() + chrono::TimeDelta::days(3)).await.unwrap();
    assert_eq!(swept.archived_raw, ["raw/old.parquet"]);
    let asked = server.asked();
    let begun = asked.iter().filter(|asked| asked.method == "POST" && asked.query.starts_with("uploads"));
    let copied = asked.iter().filter(|asked| asked.headers.contains_key("x-amz-copy-source"));
    let (begun, copied): (Vec<_>, Vec<_>) = (begun.collect(), copied.collect());
    assert_eq!((begun.len(), copied.len()), (1, 1));
    for asked in begun.into_iter().chain(copied) {
        let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("x-amz-server-side-encryption").as_deref(), Some("aws:kms"), "{}", asked.path);
        assert_eq!(header("x-amz-server-side-encryption-aws-kms-key-id").as_deref(), Some(key), "{}", asked.path);
    }
}

/// Whether a pattern of a policy covers a text.
fn covers(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.strip_prefix(before).is_some_and(|rest| (0..=rest.len()).any(|at| covers(after, &rest[at..])))
        }
    }
}

fn each(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
        one => vec![one.as_str().unwrap().to_owned()],
    }
}

fn allows(policy: &Value, action: &str, resource: &str, listed: Option<&str>) -> bool {
    policy["Statement"].as_array().unwrap().iter().any(|statement| {
        let prefixes = &statement["Condition"]["StringLike"]["s3:prefix"];
        each(&statement["Action"]).iter().any(|pattern| covers(pattern, action))
            && each(&statement["Resource"]).iter().any(|pattern| covers(pattern, resource))
            && listed.is_none_or(|prefix| prefixes.is_null() || each(prefixes).iter().any(|p| covers(p, prefix)))
    })
}

/// What a request needs: the action, the resource, and the prefix that is listed.
fn needs(asked: &Asked) -> (&'static str, String, Option<String>) {
    let bucket = format!("arn:aws:s3:::{BUCKET}");
    let object = format!("arn:aws:s3:::{}", asked.path.trim_start_matches('/'));
    let parameter =
        |name: &str| asked.query.split('&').find_map(|part| part.strip_prefix(name)).map(|v| v.replace("%2F", "/"));
    match asked.method.as_str() {
        "GET" if asked.query.contains("list-type") => ("s3:ListBucket", bucket, parameter("prefix=")),
        "GET" | "HEAD" => ("s3:GetObject", object, None),
        "PUT" => ("s3:PutObject", object, None),
        other => panic!("{other} {} {}", asked.path, asked.query),
    }
}

#[tokio::test]
async fn the_policy_allows_what_is_asked_and_protects_the_log() {
    let server = S3Server::start().await;
    let config = server.lake("team/sales");
    let policy = dataflow::lake::policy(&config).unwrap();
    let lake = Lake::open(&config).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let contract = contract("orders", &orders());
    log.commit(seal(&lake, &contract, "0", 0, 10).await, &same).await.unwrap();
    sweep_everything(&log).await.unwrap();
    let file = log.manifest(1).await.unwrap().tables["orders"].files[0].clone();
    lake.read_changes(&file, &contract).await.unwrap();
    let mut deletes = 0;
    for asked in server.asked() {
        if asked.method == "POST" && asked.query == "delete" {
            deletes += 1;
            continue;
        }
        let (action, resource, listed) = needs(&asked);
        assert!(allows(&policy, action, &resource, listed.as_deref()), "{action} {resource} {listed:?}");
    }
    assert!(deletes > 0);
    let below = |path: &str| format!("arn:aws:s3:::{BUCKET}/team/sales/{path}");
    for path in ["_log/probe/01K", "processed/orders/dt=2026-01-01/hour=00/01K.parquet", "raw/x", "quarantine/x"] {
        assert!(allows(&policy, "s3:DeleteObject", &below(path), None), "{path}");
    }
    for path in ["_log/00000000000000000001.json", "_log/log.json", "_log/checkpoint/00000000000000000064.json"] {
        assert!(!allows(&policy, "s3:DeleteObject", &below(path), None), "{path}");
    }
    assert!(!allows(&policy, "s3:GetObject", &format!("arn:aws:s3:::{BUCKET}/team/other/x"), None));
    assert!(!allows(&policy, "s3:ListBucket", &format!("arn:aws:s3:::{BUCKET}"), Some("team/other/")));

    let sse = config::Sse { kms_key: "k-1".into(), bucket_key: true };
    let policy = dataflow::lake::policy(&config::Lake { sse: Some(sse), ..config }).unwrap();
    assert!(allows(&policy, "kms:GenerateDataKey", "arn:aws:kms:eu-west-3:1:key/k-1", None));
    assert!(dataflow::lake::policy(&local(std::path::Path::new("/x"))).is_none());
}
