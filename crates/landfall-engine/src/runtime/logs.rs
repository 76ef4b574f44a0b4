//! Writes the log of a container in the format of the Container Runtime Interface: a line is
//! `TIME STREAM F|P TEXT` (Kubernetes design proposal "CRI: logging"). A long line is cut into parts (`P`), of which the
//! last is full (`F`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// How large a file grows before it is rotated away: the kubelet's default `containerLogMaxSize`.
const MAX_SIZE: u64 = 10 * 1024 * 1024;

/// How many files are kept, the current one included: the kubelet's default `containerLogMaxFiles`.
const MAX_FILES: u32 = 5;

/// The longest text of one entry; what is longer is written in parts, as containerd does.
const MAX_ENTRY: usize = 16 * 1024;

/// The file of one container that runs.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
}

impl LogWriter {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Self::with_size(path, MAX_SIZE)
    }

    fn with_size(path: &Path, max_size: u64) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_path_buf(), file, size, max_size })
    }

    /// Writes what `buffer` holds of whole lines and leaves the rest; at the `end` of the stream nothing is left.
    pub(super) fn write(&mut self, stream: &str, buffer: &mut Vec<u8>, end: bool) -> io::Result<()> {
        let now = Timestamp::now();
        let mut text = Vec::with_capacity(buffer.len() + 64);
        let mut rest: &[u8] = buffer;
        loop {
            let line = rest.iter().take(MAX_ENTRY).position(|byte| *byte == b'\n');
            let (entry, tag, next) = match line {
                Some(at) => (&rest[..at], 'F', &rest[at + 1..]),
                None if rest.len() > MAX_ENTRY => (&rest[..MAX_ENTRY], 'P', &rest[MAX_ENTRY..]),
                None if end && !rest.is_empty() => (rest, 'F', &rest[rest.len()..]),
                None => break,
            };
            // Nine digits, always, so that times have one width.
            write!(text, "{now:.9} {stream} {tag} ")?;
            text.extend_from_slice(entry);
            text.push(b'\n');
            rest = next;
        }
        let written = buffer.len() - rest.len();
        buffer.drain(..written);
        if text.is_empty() {
            return Ok(());
        }
        if self.size > 0 && self.size + text.len() as u64 > self.max_size {
            self.rotate()?;
        }
        self.file.write_all(&text)?;
        self.size += text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..MAX_FILES - 1).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(1))?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).expect("the log was written");
        text.lines().map(|line| line.split_once(' ').expect("a time comes first").1.to_owned()).collect()
    }

    #[test]
    fn whole_lines_are_written_and_the_rest_waits() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("logs/a/0.log");
        let mut log = LogWriter::create(&path).expect("a log can be made");
        let mut buffer = b"one\ntwo\nthr".to_vec();
        log.write("stdout", &mut buffer, false).expect("it can be written");
        assert_eq!(buffer, b"thr");
        assert_eq!(entries(&path), ["stdout F one", "stdout F two"]);
        log.write("stdout", &mut buffer, true).expect("it can be written");
        assert_eq!(entries(&path)[2], "stdout F thr");
    }

    #[test]
    fn a_long_line_is_cut_into_parts() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("0.log");
        let mut log = LogWriter::create(&path).expect("a log can be made");
        let mut buffer = vec![b'x'; MAX_ENTRY + 3];
        buffer.push(b'\n');
        log.write("stderr", &mut buffer, false).expect("it can be written");
        let entries = entries(&path);
        assert_eq!(entries.len(), 2);
        assert!(entries[0].starts_with("stderr P x"));
        assert_eq!(entries[1], "stderr F xxx");
    }

    #[test]
    fn a_full_file_is_rotated_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("0.log");
        let mut log = LogWriter::with_size(&path, 60).expect("a log can be made");
        for number in 0..10 {
            log.write("stdout", &mut format!("line {number}\n").into_bytes(), false).expect("it can be written");
        }
        let files = fs::read_dir(folder.path()).expect("the folder is there").count();
        assert_eq!(files, MAX_FILES as usize);
        assert_eq!(entries(&path), ["stdout F line 9"]);
        assert_eq!(entries(&folder.path().join("0.log.1")), ["stdout F line 8"]);
    }
}
