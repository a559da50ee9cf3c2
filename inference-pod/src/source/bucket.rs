//! Objects in buckets: S3 and Google Cloud Storage, and what speaks their protocols.
//!
//! Endpoint and credentials come from the environment, under the names that `object_store` documents: `AWS_ENDPOINT_URL`,
//! `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_ALLOW_HTTP`,
//! `AWS_SKIP_SIGNATURE`, web identity and instance roles; `GOOGLE_SERVICE_ACCOUNT`, `GOOGLE_SERVICE_ACCOUNT_KEY`,
//! `GOOGLE_APPLICATION_CREDENTIALS`, `GOOGLE_BASE_URL`, `GOOGLE_SKIP_SIGNATURE`.

use super::error::chain;
use super::fetch::Options;
use super::http::read_ca;
use super::remote::{Facts, Part, Remote};
use super::uri::Bucket;
use super::{Kind, Result, SourceError};
use crate::limits::{FETCH_CONNECT_MAX, FETCH_SILENCE_MAX, REFUSAL_LETTERS_MAX};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, RetryConfig};
use std::sync::Arc;

/// An object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// How errors and logs call it.
    pub(super) place: String,
    kind: Bucket,
    store: Arc<dyn ObjectStore>,
    key: Path,
}

impl Object {
    /// A client for one object; the network is not asked yet.
    ///
    /// # Errors
    /// `Malformed`: the environment does not suffice for a client.
    pub(super) fn new(kind: Bucket, bucket: &str, key: &str, options: &Options) -> Result<Self> {
        let scheme = if kind == Bucket::S3 { "s3" } else { "gs" };
        let place = format!("{scheme}://{bucket}/{key}");
        let wrong = |error: &Error| SourceError::new(Kind::Malformed, place.as_str(), words(error), credentials(kind));
        let clients = clients(options, &place)?;
        let store: Arc<dyn ObjectStore> = match kind {
            Bucket::S3 => Arc::new(s3(clients, bucket).build().map_err(|error| wrong(&error))?),
            Bucket::Google => Arc::new(google(clients, bucket).build().map_err(|error| wrong(&error))?),
        };
        let key = Path::parse(key).map_err(|error| wrong(&error.into()))?;
        Ok(Self { place, kind, store, key })
    }

    /// What the store says of the object.
    pub(super) async fn probe(self) -> Result<(Remote, Facts)> {
        let meta = self.store.head(&self.key).await.map_err(|error| self.failure(&error))?;
        let validator = meta.e_tag.or_else(|| Some(meta.last_modified.to_rfc3339()));
        Ok((Remote::Object(self), Facts { bytes: Some(meta.size), digest: None, validator }))
    }

    /// Reads from `from` to the end.
    pub(super) async fn open(&self, from: u64, facts: &Facts) -> Result<Part> {
        let range = (from > 0).then_some(GetRange::Offset(from));
        // Where the hash is known, it decides. A date, where there is no ETag, can't stand there.
        let etag = facts.validator.clone().filter(|text| facts.digest.is_none() && text.starts_with('"'));
        let options = GetOptions { range, if_match: etag, ..GetOptions::default() };
        let result = self.store.get_opts(&self.key, options).await.map_err(|error| self.failure(&error))?;
        if facts.bytes.is_some_and(|bytes| bytes != result.meta.size) {
            return Err(self.changed());
        }
        let (start, object) = (result.range.start, self.clone());
        let stream = result.into_stream().map_err(move |error| object.failure(&error)).boxed();
        Ok(Part { from: start, stream })
    }

    fn failure(&self, error: &Error) -> SourceError {
        let text = words(error);
        let status = status(error, &text);
        let (kind, fix) = match (error, status) {
            (Error::Precondition { .. }, _) => return self.changed(),
            (_, Some(404)) => (Kind::NotFound, "check the bucket and the key, and the endpoint"),
            (_, Some(401 | 403)) => (Kind::Denied, credentials(self.kind)),
            (_, Some(500..=599)) => (Kind::Unreachable, "it is the store's fault: look at its log, or wait"),
            _ if text.contains("certificate") => (
                Kind::Unreachable,
                "trust its certificate with --ca-file (QM_CA_FILE), if it is the store that you mean",
            ),
            _ => (Kind::Unreachable, "check the endpoint in the environment, and the pod's proxy and egress rules"),
        };
        let certain = matches!(status, Some(400..=407 | 409..=424)) || text.contains("certificate");
        let what = status.map_or_else(|| text.clone(), |status| format!("HTTP {status} ({text})"));
        SourceError { status, transient: !certain, ..SourceError::new(kind, self.place.as_str(), what, fix) }
    }

    fn changed(&self) -> SourceError {
        SourceError::new(
            Kind::Changed,
            self.place.as_str(),
            "the object changed while it was fetched",
            "do not overwrite it",
        )
    }
}

fn clients(options: &Options, place: &str) -> Result<ClientOptions> {
    let mut clients = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(FETCH_CONNECT_MAX)
        .with_read_timeout(FETCH_SILENCE_MAX);
    if let Some(path) = &options.ca_file {
        let certificates = Certificate::from_pem_bundle(&read_ca(path)?).map_err(|error| {
            SourceError::new(
                Kind::Malformed,
                place,
                words(&error),
                "give CA certificates in PEM by --ca-file (QM_CA_FILE)",
            )
        })?;
        clients = certificates.into_iter().fold(clients, ClientOptions::with_root_certificate);
    }
    Ok(clients)
}

/// Tries again are ours.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn environment(prefix: &str) -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).filter(move |(name, _)| name.starts_with(prefix))
}

fn s3(clients: ClientOptions, bucket: &str) -> AmazonS3Builder {
    // As `from_env` does it, but after our options for the client, which it would replace.
    let builder = AmazonS3Builder::new().with_client_options(clients).with_retry(once());
    let known = environment("AWS_").filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    known.fold(builder, |builder, (key, value)| builder.with_config(key, value)).with_bucket_name(bucket)
}

fn google(clients: ClientOptions, bucket: &str) -> GoogleCloudStorageBuilder {
    let builder = GoogleCloudStorageBuilder::new().with_client_options(clients).with_retry(once());
    let known =
        environment("GOOGLE_").filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    known.fold(builder, |builder, (key, value)| builder.with_config(key, value)).with_bucket_name(bucket)
}

const fn credentials(kind: Bucket) -> &'static str {
    match kind {
        Bucket::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY from a Secret (or give the pod a role) that may read the object, \
             AWS_REGION, and AWS_ENDPOINT_URL for another store than AWS; AWS_SKIP_SIGNATURE=true for a public bucket"
        }
        Bucket::Google => {
            "set GOOGLE_SERVICE_ACCOUNT to a key file from a Secret (or give the pod a workload identity) that may read the \
             object; GOOGLE_SKIP_SIGNATURE=true for a public bucket"
        }
    }
}

fn words(error: &Error) -> String {
    let text = chain(error);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(REFUSAL_LETTERS_MAX).collect()
}

/// The status of HTTP, which the crate keeps in its words only.
fn status(error: &Error, text: &str) -> Option<u16> {
    match error {
        Error::NotFound { .. } => Some(404),
        Error::PermissionDenied { .. } => Some(403),
        Error::Unauthenticated { .. } => Some(401),
        _ => text.split_once("status code: ")?.1.get(..3)?.parse().ok(),
    }
}
