//! Raw files on their way to the archive.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;

/// The files below a folder, by their paths there.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// GIVEN raw files of an age, WHEN the move to the archive is killed before and after each of its steps, THEN every payload
/// is there after each of them, and `reprocess` sees each once; in the end all of them are in the archive.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_move_to_the_archive_loses_and_doubles_nothing() {
    let case = Case::new();
    let stock = Stock::make(61, redelivering(1_500), 1_500);
    stock.write_files(&case.events(), 6);
    let old = case.topology("old", TABLES, "{ keep: plain, archive_after: 2d }");
    old.run_until_caught_up().await;
    let (raw, archive) = (case.path("lake-old/raw"), case.path("lake-old/archive/raw"));
    let before = files(&raw);
    assert!(before.len() > 4, "{} files", before.len());
    let three_days_ago = SystemTime::now() - Duration::from_secs(3 * 86_400);
    for path in before.keys() {
        std::fs::File::options().append(true).open(raw.join(path)).unwrap().set_modified(three_days_ago).unwrap();
    }
    // Of the last two files one is moved by the run that is killed at the next.
    let kills = [
        ("archive.copy.before", "return(kill)", 0),
        ("archive.copy.after", "return(kill)", 0),
        ("archive.delete.after", "return(kill)", 1),
        ("archive.copy.after", "1*off->return(kill)", 2),
    ];
    for (number, (place, action, moved)) in kills.into_iter().enumerate() {
        let killed = old.broken(&format!("{place}={action}"), &["compact"], &[]);
        let said = String::from_utf8_lossy(&killed.stderr).into_owned();
        assert!(!killed.status.success() && said.contains(&format!("failpoint {place} does")), "{place}: {said}");
        let (here, there) = (files(&raw), files(&archive));
        assert_eq!(before.len() - here.len(), moved, "{place}");
        let both: BTreeMap<PathBuf, Vec<u8>> = there.into_iter().chain(here).collect();
        assert!(both == before, "{place}: a payload is gone, or another one");
        let target = case.topology(&format!("new{number}"), TABLES, PLAIN);
        let report = reprocessed(&target, &["--from-lake", "lake-old"]);
        assert_eq!(report["read"], stock.lines().count() as u64, "{place}");
        case.same("old", &format!("new{number}")).await;
    }
    let done = old.other(&["compact"], &["--json"]);
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["archived"]["files"], (before.len() - 2) as u64);
    assert!(files(&raw).is_empty() && files(&archive) == before);
    let report = reprocessed(&case.topology("last", TABLES, PLAIN), &["--from-lake", "lake-old"]);
    assert_eq!(report["read"], stock.lines().count() as u64);
    case.same("old", "last").await;
    // What is archived stays there.
    assert_eq!(old.other(&["compact"], &[]).status.code(), Some(0));
    assert!(files(&archive) == before);
}
