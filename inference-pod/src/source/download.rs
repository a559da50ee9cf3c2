//! One file's way from a source into its partial file: what is there is kept, the rest is asked for, cuts are survived.

use super::cache::{Cache, Partial, Plan, boot};
use super::digest::Hasher;
use super::patience::Patience;
use super::progress::Progress;
use super::remote::{Facts, Part, Remote};
use super::{Digest, Kind, Result, SourceError};
use crate::limits::{FETCH_BYTES_MAX, FETCH_GOT_ON_BYTES, FETCH_STEP_BYTES};
use futures::StreamExt;
use std::io::{self, Seek, SeekFrom, Write};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// A download.
pub(super) struct Download<'a> {
    cache: &'a Cache,
    remote: &'a Remote,
    facts: &'a Facts,
    partial: &'a mut Partial,
    hasher: Hasher,
    /// Bytes that are there.
    at: u64,
    /// Bytes that room was made for.
    booked: u64,
    /// Bytes that came over the network.
    fetched: u64,
    /// Whether bytes of an earlier process are among those that are there.
    resumed: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// The content.
    pub(super) digest: Digest,
    /// Bytes that came over the network.
    pub(super) fetched: u64,
}

impl<'a> Download<'a> {
    /// Takes up what is there.
    pub(super) fn new(
        cache: &'a Cache,
        remote: &'a Remote,
        facts: &'a Facts,
        partial: &'a mut Partial,
    ) -> Result<Self> {
        let mut download = Self {
            cache,
            remote,
            facts,
            partial,
            hasher: Hasher::default(),
            at: 0,
            booked: 0,
            fetched: 0,
            resumed: false,
        };
        if facts.bytes.is_some_and(|bytes| bytes > FETCH_BYTES_MAX) {
            return Err(download.too_long());
        }
        download.take_up()?;
        download.book(facts.bytes.unwrap_or(FETCH_STEP_BYTES))?;
        Ok(download)
    }

    /// Fetches the rest and checks the whole.
    ///
    /// # Errors
    /// `WrongContent` when the hash is another; `Changed`; what the source's last failure was.
    pub(super) async fn run(mut self, log_every: Duration) -> Result<Done> {
        self.fetch(log_every).await?;
        let mut digest = std::mem::take(&mut self.hasher).finish();
        if self.differs(digest) && self.resumed {
            tracing::warn!(source = self.remote.place(), "what was there before was broken: fetching the whole file");
            self.restart()?;
            self.fetch(log_every).await?;
            digest = std::mem::take(&mut self.hasher).finish();
        }
        if self.differs(digest) {
            return Err(self.wrong(digest));
        }
        Ok(Done { digest, fetched: self.fetched })
    }

    /// Hashes what an earlier process left, where it can be gone on with.
    fn take_up(&mut self) -> Result<()> {
        let there = self.partial.file.metadata().map_or(0, |meta| meta.len());
        let plan = self.partial.plan().unwrap_or_default();
        let same = self.facts.validator.is_some() && plan.validator == self.facts.validator && plan.boot == boot();
        let fits = self.facts.bytes.is_none_or(|bytes| there <= bytes);
        if there == 0 || !fits || !(same || self.facts.digest.is_some()) {
            return self.restart();
        }
        self.rewind()?;
        let read = self.hasher.read(&mut self.partial.file, there);
        self.at = read.map_err(|error| self.partial.failed("reading what is there", &error))?;
        self.resumed = true;
        tracing::info!(source = self.remote.place(), bytes = self.at, "going on with what is there");
        Ok(())
    }

    fn rewind(&mut self) -> Result<()> {
        let rewound = self.partial.file.seek(SeekFrom::Start(0));
        rewound.map(|_| ()).map_err(|error| self.partial.failed("going to the beginning", &error))
    }

    /// Throws away what is there.
    fn restart(&mut self) -> Result<()> {
        let emptied = self.partial.file.set_len(0);
        emptied.map_err(|error| self.partial.failed("emptying the partial file", &error))?;
        self.rewind()?;
        (self.hasher, self.at, self.resumed) = (Hasher::default(), 0, false);
        Ok(())
    }

    /// Makes room for a file of this length.
    fn book(&mut self, bytes: u64) -> Result<()> {
        self.partial.note(&Plan { validator: self.facts.validator.clone(), bytes, boot: boot() })?;
        self.cache.make_room(self.remote.place())?;
        self.booked = bytes;
        Ok(())
    }

    async fn fetch(&mut self, log_every: Duration) -> Result<()> {
        let (mut patience, progress) =
            (Patience::default(), Progress::new(self.remote.place(), self.at, self.facts.bytes));
        while self.facts.bytes != Some(self.at) {
            let before = self.fetched;
            let ended = match self.remote.open(self.at, self.facts).await {
                Ok(part) => self.receive(part, &progress, log_every).await,
                Err(error) => Err(error),
            };
            if self.fetched.saturating_sub(before) >= FETCH_GOT_ON_BYTES {
                patience.got_on();
            }
            match ended {
                Ok(()) if self.facts.bytes.is_none_or(|bytes| bytes == self.at) => break,
                Ok(()) => patience.after(self.cut()).await?,
                Err(error) => patience.after(error).await?,
            }
        }
        progress.log(self.at);
        Ok(())
    }

    async fn receive(&mut self, mut part: Part, progress: &Progress, log_every: Duration) -> Result<()> {
        if part.from != self.at {
            tracing::info!(source = self.remote.place(), "the server sends no parts: beginning again");
            self.restart()?;
        }
        let mut ticks = interval_at(Instant::now() + log_every, log_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                chunk = part.stream.next() => match chunk {
                    Some(chunk) => self.write(&chunk?)?,
                    None => return Ok(()),
                },
                _ = ticks.tick() => progress.log(self.at),
            }
        }
    }

    fn write(&mut self, chunk: &[u8]) -> Result<()> {
        let after = self.at.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if after > self.facts.bytes.unwrap_or(FETCH_BYTES_MAX) {
            return Err(self.too_long());
        }
        if after > self.booked {
            self.book(self.booked.saturating_add(FETCH_STEP_BYTES))?;
        }
        self.partial.file.write_all(chunk).map_err(|error| self.unwritten(&error))?;
        self.hasher.update(chunk);
        (self.fetched, self.at) = (self.fetched + (after - self.at), after);
        Ok(())
    }

    fn differs(&self, digest: Digest) -> bool {
        self.facts.digest.is_some_and(|wanted| wanted != digest)
    }

    fn unwritten(&self, error: &io::Error) -> SourceError {
        self.partial.failed("writing what came", error)
    }

    fn cut(&self) -> SourceError {
        let what = format!("the answer ended after {} of {} bytes", self.at, self.facts.bytes.unwrap_or_default());
        let fix = "check the server and what is between";
        SourceError { transient: true, ..SourceError::new(Kind::Unreachable, self.remote.place(), what, fix) }
    }

    fn too_long(&self) -> SourceError {
        let what = match self.facts.bytes.filter(|bytes| *bytes <= FETCH_BYTES_MAX) {
            Some(bytes) => format!("more came than the {bytes} bytes that were announced"),
            None => format!("it is longer than {FETCH_BYTES_MAX} bytes"),
        };
        SourceError::new(Kind::WrongContent, self.remote.place(), what, "check that the source names a model file")
    }

    fn wrong(&self, digest: Digest) -> SourceError {
        let wanted = self.facts.digest.map(|digest| digest.to_string()).unwrap_or_default();
        let what = format!("its SHA-256 is {digest}, not {wanted}: it was thrown away");
        let fix = "correct the hash, if the file was replaced on purpose; else do not trust the source";
        SourceError::new(Kind::WrongContent, self.remote.place(), what, fix)
    }
}
