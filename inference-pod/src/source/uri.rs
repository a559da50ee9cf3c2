//! The URIs of `spec.variants[].source`, parsed once.

use super::{Digest, Kind, Result, SourceError};
use crate::limits::SOURCE_BYTES_MAX;
use reqwest::Url;
use std::path::PathBuf;

const SHAPES: &str = "write file:///PATH, https://HOST/PATH, hf://ORG/REPO[@REVISION]/PATH, oci://REGISTRY/REPO:TAG#/PATH, \
                      s3://BUCKET/KEY, gs://BUCKET/KEY or pvc://CLAIM/PATH";

/// A source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file that the pod has already.
    File(PathBuf),
    /// A file on a volume that the pod has mounted.
    Claim {
        /// The PersistentVolumeClaim.
        claim: String,
        /// Path on it.
        path: PathBuf,
    },
    /// A web server.
    Https(Url),
    /// Hugging Face, or what speaks its protocol.
    HuggingFace {
        /// `ORG/REPO`.
        repository: String,
        /// Branch, tag or commit.
        revision: String,
        /// Path in the repository.
        path: String,
    },
    /// A file in an artifact or an image.
    Oci(OciFile),
    /// An object in a bucket.
    Bucket {
        /// Whose.
        store: Bucket,
        /// The bucket.
        bucket: String,
        /// The object.
        key: String,
    },
}

/// Whose bucket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// S3, or what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
}

/// A file in an artifact or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciFile {
    /// Host and port of the registry's API.
    pub registry: String,
    /// Name in the registry.
    pub repository: String,
    /// Tag; `latest` where neither tag nor digest is given.
    pub tag: String,
    /// Digest of the manifest; it decides where both are given.
    pub digest: Option<Digest>,
    /// Which file of it, without a slash at the beginning; none means the only one.
    pub file: Option<String>,
}

impl Source {
    /// Parses a URI.
    ///
    /// # Errors
    /// `Malformed`, with the shapes that are taken.
    pub fn parse(text: &str) -> Result<Self> {
        let shown = shown(text);
        let wrong = |what: &str| SourceError::new(Kind::Malformed, format!("source {shown}"), what, SHAPES);
        if text.len() > SOURCE_BYTES_MAX {
            return Err(SourceError::new(
                Kind::Malformed,
                "source",
                format!("longer than {SOURCE_BYTES_MAX} bytes"),
                SHAPES,
            ));
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong("a space or a control character is in it"));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        match scheme {
            "file" => file(rest).ok_or_else(|| wrong("it is no absolute path without ..")),
            "pvc" => claim(rest).ok_or_else(|| wrong("a claim's name and a path without .. are wanted")),
            "https" => match Url::parse(text) {
                Ok(url) if url.path() != "/" => Ok(Self::Https(url)),
                Ok(_) => Err(wrong("it names no file")),
                Err(error) => Err(wrong(&error.to_string())),
            },
            "http" => Err(wrong("models are not fetched without TLS")),
            "hf" => hugging_face(rest).ok_or_else(|| wrong("an organisation, a repository and a path are wanted")),
            "oci" => oci(rest).map(Self::Oci).map_err(|what| wrong(&what)),
            "s3" => bucket(Bucket::S3, rest).ok_or_else(|| wrong("a bucket and a key are wanted")),
            "gs" => bucket(Bucket::Google, rest).ok_or_else(|| wrong("a bucket and a key are wanted")),
            other => Err(wrong(&format!("{other} is no scheme that is known"))),
        }
    }
}

/// A URI as it may be shown: no user, no password, no query.
pub(super) fn shown(text: &str) -> String {
    let (text, cut) = text.split_once('?').map_or((text, ""), |(before, _)| (before, "?…"));
    let Some((scheme, rest)) = text.split_once("://") else { return format!("{text}{cut}") };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // In hf:// and oci:// an @ stands before a revision or a digest, behind the first slash.
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}{cut}")
}

fn stays_inside(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn file(rest: &str) -> Option<Source> {
    let inside = rest.strip_prefix('/').is_some_and(stays_inside);
    inside.then(|| Source::File(PathBuf::from(rest)))
}

fn claim(rest: &str) -> Option<Source> {
    let (claim, path) = rest.split_once('/')?;
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let named = claim.chars().all(name) && stays_inside(claim);
    (named && stays_inside(path)).then(|| Source::Claim { claim: claim.to_owned(), path: PathBuf::from(path) })
}

fn hugging_face(rest: &str) -> Option<Source> {
    let mut parts = rest.splitn(3, '/');
    let (organisation, repository, path) = (parts.next()?, parts.next()?, parts.next()?);
    // A slash in a revision is written %2F.
    let (name, revision) = repository.split_once('@').unwrap_or((repository, "main"));
    let revision = revision.replace("%2F", "/").replace("%2f", "/");
    let whole = stays_inside(organisation) && stays_inside(name) && stays_inside(&revision) && stays_inside(path);
    let repository = format!("{organisation}/{name}");
    whole.then(|| Source::HuggingFace { repository, revision, path: path.to_owned() })
}

fn bucket(store: Bucket, rest: &str) -> Option<Source> {
    let (bucket, key) = rest.split_once('/')?;
    let whole = !bucket.is_empty() && stays_inside(key) && !key.contains('?');
    whole.then(|| Source::Bucket { store, bucket: bucket.to_owned(), key: key.to_owned() })
}

fn oci(rest: &str) -> Result<OciFile, String> {
    let (image, file) = match rest.split_once('#') {
        Some((image, file)) => (image, Some(file.trim_start_matches('/').to_owned())),
        None => (rest, None),
    };
    if file.as_deref().is_some_and(|file| !stays_inside(file)) {
        return Err("a path without .. is wanted behind #".into());
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(Digest::parse(digest).map_err(|error| error.to_string())?)),
        None => (image, None),
    };
    let (registry, path) = name.split_once('/').ok_or("a registry and a repository are wanted")?;
    let (repository, tag) = path.rsplit_once(':').unwrap_or((path, "latest"));
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '/');
    if registry.is_empty() || !stays_inside(repository) || !repository.chars().all(name) {
        return Err("a registry, and a repository in small letters, are wanted".into());
    }
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if tag.is_empty() || !tag.chars().all(word) {
        return Err("the tag holds letters, digits, '.', '_' and '-' only".into());
    }
    let (registry, repository) = match registry {
        "docker.io" | "index.docker.io" if repository.contains('/') => ("registry-1.docker.io", repository.to_owned()),
        "docker.io" | "index.docker.io" => ("registry-1.docker.io", format!("library/{repository}")),
        other => (other, repository.to_owned()),
    };
    Ok(OciFile { registry: registry.to_owned(), repository, tag: tag.to_owned(), digest, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hf(repository: &str, revision: &str, path: &str) -> Source {
        let (repository, revision, path) = (repository.into(), revision.into(), path.into());
        Source::HuggingFace { repository, revision, path }
    }

    fn image(registry: &str, repository: &str, tag: &str, file: Option<&str>) -> Source {
        let (registry, repository, tag) = (registry.into(), repository.into(), tag.into());
        Source::Oci(OciFile { registry, repository, tag, digest: None, file: file.map(Into::into) })
    }

    #[test]
    fn each_shape_is_taken() {
        let s3 = Source::Bucket { store: Bucket::S3, bucket: "b".into(), key: "a/m.gguf".into() };
        let cases = [
            ("file:///models/x.gguf", Source::File("/models/x.gguf".into())),
            ("pvc://models/a/x.gguf", Source::Claim { claim: "models".into(), path: "a/x.gguf".into() }),
            ("https://h/x?sig=1", Source::Https(Url::parse("https://h/x?sig=1").unwrap())),
            ("hf://org/repo/x.gguf", hf("org/repo", "main", "x.gguf")),
            ("hf://org/repo@refs%2Fpr%2F1/a/x.gguf", hf("org/repo", "refs/pr/1", "a/x.gguf")),
            ("s3://b/a/m.gguf", s3),
            ("oci://localhost:5000/a/b:q8#/m.gguf", image("localhost:5000", "a/b", "q8", Some("m.gguf"))),
            ("oci://ghcr.io/a/b", image("ghcr.io", "a/b", "latest", None)),
            ("oci://docker.io/b:1", image("registry-1.docker.io", "library/b", "1", None)),
        ];
        for (text, wanted) in cases {
            assert_eq!(Source::parse(text).unwrap(), wanted, "{text}");
        }
        let pinned = format!("oci://h/a:t@sha256:{}#/m", Digest::of("x"));
        let Source::Oci(pinned) = Source::parse(&pinned).unwrap() else { panic!("it is no artifact") };
        assert_eq!((pinned.digest, pinned.tag.as_str()), (Some(Digest::of("x")), "t"));
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in [
            "",
            "x",
            "ftp://h/x",
            "http://h/x",
            "https://h",
            "file://x",
            "file:///a/../b",
            "file:///",
            "pvc://x",
            "pvc://x/../y",
            "pvc://../y",
            "hf://org/repo",
            "hf://org",
            "hf://org/repo@/x",
            "s3://b",
            "s3://b/",
            "gs:///k",
            "oci://h",
            "oci://h/a#/../x",
            "oci://h/A:t",
            "oci://h/a:t@sha256:0f",
            "oci://h/a:",
            "file:///a b",
            "oci:///a",
        ] {
            let error = Source::parse(text).unwrap_err();
            assert_eq!(error.kind, Kind::Malformed, "{text}");
            assert!(error.to_string().contains("write file:///PATH"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown("https://user:pass@h:8/a/x.gguf?sig=secret"), "https://h:8/a/x.gguf?…");
        assert_eq!(shown("hf://org/repo@v1/x"), "hf://org/repo@v1/x");
        let error = Source::parse("https://user:pass@h?secret").unwrap_err().to_string();
        assert!(!error.contains("pass") && !error.contains("secret"), "{error}");
    }
}
