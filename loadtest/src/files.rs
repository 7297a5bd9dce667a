//! Events as JSON lines in files. Only whole lines are ever written.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loadtest::Event;

use crate::Sink;

/// Bytes of lines that wait for a file before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// One file a table in a folder, or one file for all.
pub struct Files {
    folder: Option<PathBuf>,
    by_topic: HashMap<Arc<str>, usize>,
    outputs: Vec<Output>,
}

struct Output {
    path: PathBuf,
    file: File,
    lines: Vec<u8>,
}

impl Files {
    /// `path` is a file when it ends like one, else a folder that is made when it is missing.
    pub fn create(path: &Path) -> Result<Self, String> {
        let file = path.extension().is_some_and(|e| ["json", "jsonl", "ndjson"].iter().any(|known| e == *known));
        let folder = if file { path.parent().unwrap_or(Path::new(".")) } else { path };
        std::fs::create_dir_all(folder).map_err(|error| format!("make the folder {}: {error}", folder.display()))?;
        if file {
            let outputs = vec![Output::open(path.to_owned())?];
            return Ok(Self { folder: None, by_topic: HashMap::new(), outputs });
        }
        Ok(Self { folder: Some(path.to_owned()), by_topic: HashMap::new(), outputs: Vec::new() })
    }

    fn output(&mut self, topic: &Arc<str>) -> Result<&mut Output, String> {
        let at = match (&self.folder, self.by_topic.get(topic)) {
            (None, _) => 0,
            (Some(_), Some(&at)) => at,
            (Some(folder), None) => {
                let table = topic.rsplit('.').next().unwrap_or(topic);
                self.outputs.push(Output::open(folder.join(format!("{table}.jsonl")))?);
                self.by_topic.insert(Arc::clone(topic), self.outputs.len() - 1);
                self.outputs.len() - 1
            }
        };
        Ok(&mut self.outputs[at])
    }
}

impl Output {
    fn open(path: PathBuf) -> Result<Self, String> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|error| format!("open {}: {error}", path.display()))?;
        Ok(Self { path, file, lines: Vec::with_capacity(BUFFER_BYTES + (16 << 10)) })
    }

    fn write(&mut self) -> Result<(), String> {
        self.file.write_all(&self.lines).map_err(|error| format!("write {}: {error}", self.path.display()))?;
        self.lines.clear();
        Ok(())
    }
}

impl Sink for Files {
    fn send(&mut self, event: Event) -> Result<(), String> {
        let Some(value) = &event.value else { return Ok(()) };
        let output = self.output(&event.topic)?;
        output.lines.extend_from_slice(value);
        output.lines.push(b'\n');
        if output.lines.len() >= BUFFER_BYTES { output.write() } else { Ok(()) }
    }

    fn flush(&mut self, _last: bool) -> Result<(), String> {
        self.outputs.iter_mut().filter(|output| !output.lines.is_empty()).try_for_each(Output::write)
    }
}
