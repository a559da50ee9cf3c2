//! What a gateway must not forget when it is killed: open holds, and settlements that the ledger has not taken.
//!
//! One file of JSON lines, one thread that writes it. Notes that arrive together share one fsync. A settlement is on disk
//! before the client gets its last byte; after a crash [`Journal::start`] returns what is still to be settled, where a hold
//! that nobody closed counts in full. Sending one of them twice is harmless: the ledger knows the attempt.

use crate::disk;
use crate::limits;
use quartermaster_core::wire::ledger::Settle;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// How an attempt ends at the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Closing {
    /// It used this.
    Settle(Settle),
    /// The ledger may or may not hold something for it, and nothing was served.
    Release(String),
}

impl Closing {
    /// Id of the attempt.
    pub fn attempt(&self) -> &str {
        match self {
            Self::Settle(settle) => &settle.attempt,
            Self::Release(attempt) => attempt,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Note {
    /// Something is held; this is how it ends if nobody says otherwise.
    Open(Closing),
    /// This is how it ends.
    Close(Closing),
    /// The ledger has taken it.
    Done(String),
}

struct Job {
    note: Note,
    /// On the disk itself, not just beyond the reach of a kill.
    sync: bool,
    written: Option<oneshot::Sender<bool>>,
}

/// The handle; dropping it ends the thread after the last note.
#[derive(Debug)]
pub struct Journal {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal in `folder` and returns what a former process left open. `failed` is called for each write that
    /// failed.
    pub fn start(folder: &Path, failed: impl Fn() + Send + 'static) -> io::Result<(Self, Vec<Closing>)> {
        std::fs::create_dir_all(folder)?;
        let lock = disk::create(&folder.join("lock"))?;
        lock.try_lock().map_err(|error| io::Error::other(format!("locking {}: {error}", folder.display())))?;
        let path = folder.join("journal.jsonl");
        let open = replay(&path)?;
        let left = open.values().cloned().collect();
        let (jobs, inbox) = mpsc::channel(limits::JOURNAL_QUEUE_MAX);
        let mut writer = Writer::compacted(path, open)?;
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || {
            let _lock = lock;
            writer.run(inbox, failed);
        })?;
        Ok((Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) }, left))
    }

    /// Writes soon. `false`: the queue is full or closed, and the hold's lease has to do.
    pub fn note(&self, note: Note) -> bool {
        self.send(Job { note, sync: false, written: None })
    }

    /// Queues the note at once; the answer comes when it outlives this process, and with `sync` the machine.
    pub fn note_answered(&self, note: Note, sync: bool) -> oneshot::Receiver<bool> {
        let (written, answer) = oneshot::channel();
        self.send(Job { note, sync, written: Some(written) });
        answer
    }

    fn send(&self, job: Job) -> bool {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }

    /// Writes what is queued and ends. Blocks.
    pub fn finish(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's thread has panicked");
        }
    }
}

/// What is open at the end of the file. A torn line is one whose client never got its last byte: skipped.
fn replay(path: &Path) -> io::Result<BTreeMap<String, Closing>> {
    let mut open = BTreeMap::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(open),
        Err(error) => return Err(error),
    };
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        match serde_json::from_slice(&line) {
            Ok(note) => apply(&mut open, note),
            Err(_) if line.is_empty() => {}
            Err(error) => tracing::warn!(%error, "skipping a torn line of the journal"),
        }
    }
    Ok(open)
}

fn apply(open: &mut BTreeMap<String, Closing>, note: Note) {
    match note {
        Note::Open(closing) | Note::Close(closing) => {
            open.insert(closing.attempt().to_owned(), closing);
        }
        Note::Done(attempt) => {
            open.remove(&attempt);
        }
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    open: BTreeMap<String, Closing>,
    grown: u64,
    /// The last write failed half-way: the next one starts on a new line.
    torn: bool,
}

impl Writer {
    /// A file that holds just what is open.
    fn compacted(path: PathBuf, open: BTreeMap<String, Closing>) -> io::Result<Self> {
        let mut bytes = Vec::new();
        for closing in open.values() {
            line(&mut bytes, &Note::Open(closing.clone()))?;
        }
        disk::replace(&path, &bytes)?;
        let file = OpenOptions::new().append(true).open(&path)?;
        Ok(Self { path, file, open, grown: 0, torn: false })
    }

    fn run(&mut self, mut inbox: mpsc::Receiver<Job>, failed: impl Fn()) {
        let mut batch = Vec::with_capacity(limits::JOURNAL_BATCH_MAX);
        while inbox.blocking_recv_many(&mut batch, limits::JOURNAL_BATCH_MAX) > 0 {
            let result = self.write(&batch);
            if let Err(error) = &result {
                tracing::error!(%error, path = %self.path.display(), "writing the journal failed");
                failed();
            }
            for job in batch.drain(..) {
                if let Some(written) = job.written {
                    // The request may have gone; its note is on disk all the same.
                    let _gone = written.send(result.is_ok());
                }
                apply(&mut self.open, job.note);
            }
            if self.grown > limits::JOURNAL_COMPACT_BYTES {
                self.compact();
            }
        }
    }

    fn write(&mut self, batch: &[Job]) -> io::Result<()> {
        let mut bytes = if self.torn { vec![b'\n'] } else { Vec::new() };
        for job in batch {
            line(&mut bytes, &job.note)?;
        }
        self.torn = true;
        self.file.write_all(&bytes)?;
        self.torn = false;
        self.grown = self.grown.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if batch.iter().any(|job| job.sync) { self.file.sync_data() } else { Ok(()) }
    }

    fn compact(&mut self) {
        match Self::compacted(self.path.clone(), std::mem::take(&mut self.open)) {
            Ok(writer) => *self = writer,
            Err(error) => {
                tracing::error!(%error, "rewriting the journal failed");
                // Nothing is lost: the old file still says it all.
                self.open = replay(&self.path).unwrap_or_default();
                self.grown = 0;
            }
        }
    }
}

fn line(bytes: &mut Vec<u8>, note: &Note) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, note)?;
    bytes.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quartermaster_core::units::{NanoUsd, Tokens};
    use quartermaster_core::wire::ledger::{Amount, Usage};

    fn settle(attempt: &str, tokens: u64) -> Closing {
        let actual = Amount { tokens: Tokens(tokens), nano_usd: NanoUsd::ZERO };
        Closing::Settle(Settle { attempt: attempt.into(), actual, usage: Usage::default() })
    }

    fn start(folder: &Path) -> (Journal, Vec<Closing>) {
        Journal::start(folder, || panic!("a write failed")).unwrap()
    }

    #[test]
    fn what_was_open_comes_back_until_the_ledger_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, left) = start(folder.path());
        assert_eq!(left, []);
        journal.note(Note::Open(settle("a", 100)));
        journal.note(Note::Open(settle("b", 100)));
        journal.note(Note::Open(settle("c", 100)));
        journal.note(Note::Close(settle("b", 7)));
        journal.note(Note::Done("c".into()));
        let on_disk = journal.note_answered(Note::Open(Closing::Release("d".into())), true);
        assert_eq!(on_disk.blocking_recv(), Ok(true));
        journal.finish();
        for _ in 0..2 {
            let (journal, left) = start(folder.path());
            assert_eq!(left, [settle("a", 100), settle("b", 7), Closing::Release("d".into())]);
            journal.finish();
        }
    }

    #[test]
    fn a_torn_end_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = start(folder.path());
        journal.note(Note::Open(settle("a", 100)));
        journal.finish();
        let path = folder.path().join("journal.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"close":{"settle":{"attempt":"a","act"#).unwrap();
        let (journal, left) = start(folder.path());
        assert_eq!(left, [settle("a", 100)]);
        journal.finish();
    }

    #[test]
    fn two_gateways_never_share_a_journal() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = start(folder.path());
        assert!(Journal::start(folder.path(), || ()).is_err());
        journal.finish();
        assert!(Journal::start(folder.path(), || ()).is_ok());
    }

    #[test]
    fn a_long_life_leaves_a_short_file() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = start(folder.path());
        let rounds = limits::JOURNAL_COMPACT_BYTES / 150;
        for n in 0..rounds {
            let attempt = format!("attempt-{n}");
            while !journal.note(Note::Open(settle(&attempt, 100))) {
                std::thread::yield_now();
            }
            while !journal.note(Note::Done(attempt.clone())) {
                std::thread::yield_now();
            }
        }
        journal.finish();
        let bytes = std::fs::metadata(folder.path().join("journal.jsonl")).unwrap().len();
        assert!(bytes < limits::JOURNAL_COMPACT_BYTES, "{bytes}");
    }
}
