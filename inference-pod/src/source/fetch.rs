//! From a URI to a file: is it there, where is it, fetch it, keep it.

use super::bucket::Object;
use super::cache::{Cache, Entry, Known, Partial};
use super::download::Download;
use super::http::{Access, Advice, Http, WebFile};
use super::oci;
use super::patience::patiently;
use super::remote::{Facts, Remote};
use super::uri::{Source, shown};
use super::{Digest, Kind, Result, SourceError, hf, local};
use crate::limits::{CACHE_POLL, FETCH_CHANGES_MAX};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The URI.
    pub source: String,
    /// What its content must be.
    pub sha256: Option<Digest>,
}

/// Where things are, and how long to wait.
#[derive(Clone, Debug)]
pub struct Options {
    /// The shared folder.
    pub cache: PathBuf,
    /// Most bytes in it; none means what the disk holds.
    pub cache_limit_bytes: Option<u64>,
    /// Folder under which each claim is mounted under its name.
    pub pvc_root: PathBuf,
    /// CA certificates in PEM to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Credentials for registries; none means docker's usual places.
    pub docker_config: Option<PathBuf>,
    /// Where Hugging Face is.
    pub hf_endpoint: String,
    /// Token for it.
    pub hf_token: Option<String>,
    /// Longest time for one file.
    pub patience: Duration,
    /// Time between two lines of progress.
    pub log_every: Duration,
}

/// A file that is here.
#[derive(Debug)]
pub struct Fetched {
    /// Where.
    pub path: PathBuf,
    /// How long.
    pub bytes: u64,
    /// What, where that was looked at: files outside the cache are hashed only when a hash was asked for.
    pub digest: Option<Digest>,
    /// Bytes that came over the network for it, now.
    pub fetched_bytes: u64,
    /// Keeps it from being evicted.
    pub(super) entry: Option<Entry>,
}

impl Fetched {
    /// Whether the file is in the cache, and held there as long as this lives.
    #[must_use]
    pub const fn is_cached(&self) -> bool {
        self.entry.is_some()
    }

    fn here(path: PathBuf, digest: Option<Digest>) -> Self {
        let bytes = path.metadata().map_or(0, |meta| meta.len());
        Self { path, bytes, digest, fetched_bytes: 0, entry: None }
    }

    pub(super) fn cached(entry: Entry, fetched_bytes: u64) -> Self {
        let (path, bytes, digest) = (entry.path.clone(), entry.bytes, Some(entry.digest));
        Self { path, bytes, digest, fetched_bytes, entry: Some(entry) }
    }
}

/// Brings a source's file here. It blocks; call it from no asynchronous task.
///
/// # Errors
/// Where, what, and what to do.
pub fn fetch(request: &Request, options: &Options) -> Result<Fetched> {
    let source = Source::parse(&request.source)?;
    let path = match &source {
        Source::File(path) => local::file(path)?,
        Source::Claim { claim, path } => local::claim(&options.pvc_root, claim, path)?,
        _ => return from_afar(request, options, &source),
    };
    if let Some(wanted) = request.sha256 {
        local::check(&path, wanted)?;
    }
    Ok(Fetched::here(path, request.sha256))
}

fn from_afar(request: &Request, options: &Options, source: &Source) -> Result<Fetched> {
    let cache = Cache::open(&options.cache, options.cache_limit_bytes)?;
    if let Some(entry) = request.sha256.map(|digest| cache.get(digest)).transpose()?.flatten() {
        return Ok(Fetched::cached(entry, 0));
    }
    let place = shown(&request.source);
    let uri = Digest::of(&request.source);
    let fetcher = Fetcher {
        options,
        cache,
        http: Http::new(options.ca_file.as_deref())?,
        source,
        place,
        uri,
        wanted: request.sha256,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| SourceError::local("starting to fetch", &options.cache, &error))?;
    runtime.block_on(async {
        tokio::time::timeout(options.patience, fetcher.run()).await.unwrap_or_else(|_| {
            let what = format!("not done after {} seconds", options.patience.as_secs());
            let fix = "what came is kept and gone on with; allow more time by --fetch-timeout-seconds";
            Err(SourceError::new(Kind::Late, fetcher.place.as_str(), what, fix))
        })
    })
}

/// One fetch.
pub(super) struct Fetcher<'a> {
    options: &'a Options,
    pub(super) cache: Cache,
    http: Http,
    pub(super) source: &'a Source,
    pub(super) place: String,
    pub(super) uri: Digest,
    pub(super) wanted: Option<Digest>,
}

impl Fetcher<'_> {
    async fn run(&self) -> Result<Fetched> {
        let mut changes = 0;
        loop {
            match self.once().await {
                Err(error) if error.kind == Kind::Changed && changes < FETCH_CHANGES_MAX => {
                    tracing::warn!(%error, "beginning again");
                    changes += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn once(&self) -> Result<Fetched> {
        match patiently(async || self.resolve().await).await {
            Ok(oci::Found::File(found)) => {
                let (remote, facts) = *found;
                self.file(&remote, facts).await
            }
            Ok(oci::Found::Layers { manifest, layers }) => self.layers(manifest, layers).await,
            // A store that is down stops no pod whose file is here.
            Err(error) if error.kind == Kind::Unreachable && self.wanted.is_none() => {
                let entry = self.remembered()?.ok_or_else(|| error.clone())?;
                tracing::warn!(%error, path = %entry.path.display(), "using the file that it led to the last time");
                Ok(Fetched::cached(entry, 0))
            }
            Err(error) => Err(error),
        }
    }

    async fn resolve(&self) -> Result<oci::Found> {
        let found = match self.source {
            Source::Oci(file) => return oci::resolve(&self.http, self.options, file, &self.place).await,
            Source::HuggingFace { repository, revision, path } => {
                hf::resolve(&self.http, self.options, (repository, revision, path)).await?
            }
            Source::Bucket { store, bucket, key } => Object::new(*store, bucket, key, self.options)?.probe().await?,
            Source::Https(url) => {
                let advice = Advice {
                    denied: "use a signed URL that is still valid, or hf://, s3://, gs:// or oci:// with credentials"
                        .into(),
                    missing: "check the URL's path".into(),
                };
                let (client, url) = (self.http.follows.clone(), url.clone());
                WebFile { place: self.place.clone(), client, url, access: Access::Open, advice }.probe().await?
            }
            Source::File(_) | Source::Claim { .. } => {
                let fix = "use it where it is";
                return Err(SourceError::new(Kind::Malformed, self.place.as_str(), "it is here already", fix));
            }
        };
        Ok(oci::Found::File(Box::new(found)))
    }

    fn remembered(&self) -> Result<Option<Entry>> {
        let known = self.cache.known(self.uri).and_then(|known| Digest::parse(&known.sha256).ok());
        known.map_or(Ok(None), |digest| self.cache.get(digest))
    }

    /// What is in the cache of a file with these facts. A file without hash and version is never the one that is there.
    pub(super) fn present(&self, facts: &Facts) -> Result<Option<Entry>> {
        if let Some(digest) = facts.digest {
            return self.cache.get(digest);
        }
        let same = |known: &Known| facts.validator.is_some() && known.validator == facts.validator;
        if self.cache.known(self.uri).as_ref().is_some_and(same) { self.remembered() } else { Ok(None) }
    }

    async fn file(&self, remote: &Remote, mut facts: Facts) -> Result<Fetched> {
        if let (Some(wanted), Some(digest)) = (self.wanted, facts.digest)
            && wanted != digest
        {
            return Err(self.wrong_content(digest, wanted));
        }
        facts.digest = self.wanted.or(facts.digest);
        self.blob(remote, &facts, true).await
    }

    fn wrong_content(&self, digest: Digest, wanted: Digest) -> SourceError {
        let what = format!("the source says that its SHA-256 is {digest}, not {wanted}: nothing was fetched");
        let fix = "correct the hash, if the file was replaced on purpose; else do not trust the source";
        SourceError::new(Kind::WrongContent, self.place.as_str(), what, fix)
    }

    /// The file of a source, or (not `named`) a layer of it.
    pub(super) async fn blob(&self, remote: &Remote, facts: &Facts, named: bool) -> Result<Fetched> {
        let note = |digest| {
            if named {
                self.note(digest, facts.validator.clone());
            }
        };
        let version = facts.validator.as_deref().unwrap_or_default();
        let key = facts.digest.unwrap_or_else(|| Digest::of(&format!("{}\n{version}", self.uri)));
        let mut partial = match self.turn(&key.to_string(), || self.present(facts)).await? {
            Turn::Present(entry) => {
                note(entry.digest);
                return Ok(Fetched::cached(entry, 0));
            }
            Turn::Ours(partial) => partial,
        };
        let done = match Download::new(&self.cache, remote, facts, &mut partial) {
            Ok(download) => download.run(self.options.log_every).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(done) => {
                // Before the lock is free: who waits looks here.
                note(done.digest);
                let entry = self.cache.keep(partial, done.digest)?;
                Ok(Fetched::cached(entry, done.fetched))
            }
            Err(error) => {
                let empty = partial.file.metadata().is_ok_and(|meta| meta.len() == 0);
                if empty || matches!(error.kind, Kind::WrongContent | Kind::Changed) {
                    partial.remove();
                }
                Err(error)
            }
        }
    }

    pub(super) fn note(&self, digest: Digest, validator: Option<String>) {
        self.cache.note(self.uri, &Known { sha256: digest.to_string(), validator });
    }

    /// Waits until the file is there, or it is ours to write.
    pub(super) async fn turn(&self, key: &str, present: impl Fn() -> Result<Option<Entry>>) -> Result<Turn> {
        let mut logged = Instant::now();
        tracing::debug!(source = self.place, key, "looking into the cache");
        loop {
            let partial = self.cache.try_partial(key)?;
            // In this order: what another process finished is seen once its lock is free.
            match (present()?, partial) {
                (Some(entry), partial) => {
                    if let Some(partial) = partial {
                        partial.remove();
                    }
                    return Ok(Turn::Present(entry));
                }
                (None, Some(partial)) => return Ok(Turn::Ours(partial)),
                (None, None) => {}
            }
            if logged.elapsed() >= self.options.log_every {
                tracing::info!(source = self.place, "waiting for another process that fetches the same");
                logged = Instant::now();
            }
            tokio::time::sleep(CACHE_POLL).await;
        }
    }
}

/// Whose turn it is.
pub(super) enum Turn {
    /// Nobody's: the file is there.
    Present(Entry),
    /// Ours to write it.
    Ours(Partial),
}
