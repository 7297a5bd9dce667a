//! Which files a source means: a file, a folder or a glob.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use crate::error::{Error, ErrorKind, Result};

const FOLDER_ENDINGS: [&str; 3] = ["json", "jsonl", "ndjson"];

/// A file that is there now.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// Relative to where the pattern begins, so that a moved folder keeps its partitions' names.
    pub(super) relative: String,
    pub(super) inode: u64,
    pub(super) device: u64,
    /// Bytes on disk.
    pub(super) bytes: u64,
}

impl Found {
    fn at(path: PathBuf, relative: String) -> io::Result<Option<Self>> {
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            // Renamed or deleted between the listing and now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(meta.is_file().then(|| Self { path, relative, inode: meta.ino(), device: meta.dev(), bytes: meta.len() }))
    }
}

/// What the topology's `path` means.
#[derive(Debug)]
pub(super) enum Pattern {
    File(PathBuf),
    Folder(PathBuf),
    Glob { base: PathBuf, matcher: Box<GlobMatcher>, deep: bool },
}

impl Pattern {
    pub(super) fn new(path: &str) -> Result<Self> {
        let whole = Path::new(path);
        if whole.is_dir() || path.ends_with('/') {
            return Ok(Self::Folder(whole.to_owned()));
        }
        if whole.exists() || !path.contains(['*', '?', '[', '{']) {
            return Ok(Self::File(whole.to_owned()));
        }
        let base: PathBuf = whole
            .components()
            .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']))
            .collect();
        let relative = whole.strip_prefix(&base).unwrap_or(whole).to_string_lossy().into_owned();
        let glob = GlobBuilder::new(&relative).literal_separator(true).build().map_err(|error| {
            Error::new(ErrorKind::Config, format!("`{path}` is not a file, a folder or a glob"))
                .because(error)
                .help("write e.g. data/orders.jsonl, data/ or data/**/*.jsonl.gz")
        })?;
        let deep = relative.contains('/');
        let base = if base.as_os_str().is_empty() { PathBuf::from(".") } else { base };
        Ok(Self::Glob { base, matcher: Box::new(glob.compile_matcher()), deep })
    }

    /// All files, the oldest first as far as names tell: by name, but `x.2` before `x.1` before `x`.
    pub(super) fn list(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        match self {
            Self::File(path) => {
                let relative = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
                found.extend(Found::at(path.clone(), relative)?);
            }
            Self::Folder(folder) => walk(folder, folder, false, &is_json_lines, &mut found)?,
            Self::Glob { base, matcher, deep } => walk(base, base, *deep, &|path| matcher.is_match(path), &mut found)?,
        }
        found.sort_by(|a, b| rotation_order(&a.relative).cmp(&rotation_order(&b.relative)));
        // A second name of the same file (a link) would be read twice.
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|file| seen.insert((file.device, file.inode)));
        Ok(found)
    }

    /// Files beside `path` whose names begin with its name: where rotation puts the old file.
    pub(super) fn siblings(path: &Path) -> io::Result<Vec<Found>> {
        let (Some(name), Some(folder)) = (path.file_name(), path.parent()) else { return Ok(Vec::new()) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let name = name.to_string_lossy().into_owned();
        let mut found = Vec::new();
        let begins = |other: &Path| other.to_string_lossy().starts_with(&name);
        walk(folder, folder, false, &begins, &mut found)?;
        Ok(found)
    }

    /// Where a partition with that relative name stood.
    pub(super) fn resolve(&self, relative: &str) -> PathBuf {
        match self {
            Self::File(path) => path.with_file_name(relative),
            Self::Folder(base) | Self::Glob { base, .. } => base.join(relative),
        }
    }
}

fn is_json_lines(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    FOLDER_ENDINGS.iter().any(|ending| name.strip_suffix(ending).is_some_and(|stem| stem.ends_with('.')))
}

fn walk(
    base: &Path,
    folder: &Path,
    deep: bool,
    wanted: &dyn Fn(&Path) -> bool,
    found: &mut Vec<Found>,
) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        // Links to folders are not followed: they can lead in circles.
        if path.is_dir() {
            if deep && !path.is_symlink() {
                walk(base, &path, deep, wanted, found)?;
            }
            continue;
        }
        let relative = path.strip_prefix(base).unwrap_or(&path);
        if wanted(relative) {
            let relative = relative.to_string_lossy().into_owned();
            found.extend(Found::at(path, relative)?);
        }
    }
    Ok(())
}

/// `x.jsonl.2` is older than `x.jsonl.1` is older than `x.jsonl`; everything else goes by name.
fn rotation_order(relative: &str) -> (&str, std::cmp::Reverse<u32>, &str) {
    let bare = relative.strip_suffix(".gz").or_else(|| relative.strip_suffix(".zst")).unwrap_or(relative);
    let rotated = bare.rsplit_once('.').and_then(|(stem, number)| {
        let plain = number.len() <= 4 && !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| number.parse().ok()).flatten().map(|number: u32| (stem, number))
    });
    let (stem, number) = rotated.unwrap_or((bare, 0));
    (stem, std::cmp::Reverse(number), relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_come_oldest_first() {
        let mut names = ["x.jsonl", "x.jsonl.1", "x.jsonl.10.gz", "x.jsonl.2", "a.jsonl", "p.002", "p.001"];
        names.sort_by_key(|name| rotation_order(name));
        assert_eq!(names, ["a.jsonl", "p.001", "p.002", "x.jsonl.10.gz", "x.jsonl.2", "x.jsonl.1", "x.jsonl"]);
    }

    #[test]
    fn a_folder_means_its_json_lines() {
        for name in ["a.json", "a.jsonl", "a.ndjson.gz", "a.jsonl.zst"] {
            assert!(is_json_lines(Path::new(name)), "{name}");
        }
        for name in ["a.txt", "json", "a.json.bak", "a.gz"] {
            assert!(!is_json_lines(Path::new(name)), "{name}");
        }
    }
}
