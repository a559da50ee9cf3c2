//! Where a variant's file comes from, parsed once.

use std::fmt;

/// A source that this version serves from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file in an image, copied by an init container.
    Image {
        /// The image.
        image: String,
        /// Absolute path in it.
        path: String,
    },
    /// A file that the pod has already.
    File {
        /// Absolute path in the pod.
        path: String,
    },
    /// A file on a volume of the model's namespace, served from where it lies.
    Claim {
        /// The PersistentVolumeClaim.
        claim: String,
        /// Path on it, without a slash at the beginning.
        path: String,
    },
    /// A file that an init container fetches: https://, hf://, s3:// or gs://.
    Remote {
        /// As it was written.
        uri: String,
    },
}

/// Schemes that `inference-pod fetch` knows.
const REMOTE: [&str; 4] = ["https://", "hf://", "s3://", "gs://"];

/// Why a source is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A scheme that nobody knows.
    #[error("source {0}: write hf://, oci://, s3://, gs://, pvc://, https:// or file://")]
    Scheme(String),
    /// Image, claim, host or path is missing, or the path leaves its root.
    #[error(
        "source {0}: write oci://IMAGE#/path/model.gguf, pvc://CLAIM/path/model.gguf, file:///path/model.gguf, \
         https://HOST/path, hf://ORG/REPO/path, s3://BUCKET/key or gs://BUCKET/key, without .. in the path"
    )]
    Shape(String),
}

impl Source {
    /// Parses `spec.variants[].source`.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let shape = || SourceError::Shape(text.to_owned());
        let safe = |path: &str| path.starts_with('/') && path.len() > 1 && !path.split('/').any(|part| part == "..");
        if let Some(rest) = text.strip_prefix("oci://") {
            let (image, path) = rest.split_once('#').ok_or_else(shape)?;
            let found = Self::Image { image: image.to_owned(), path: path.to_owned() };
            return (!image.is_empty() && safe(path)).then_some(found).ok_or_else(shape);
        }
        if let Some(path) = text.strip_prefix("file://") {
            return safe(path).then(|| Self::File { path: path.to_owned() }).ok_or_else(shape);
        }
        if let Some(rest) = text.strip_prefix("pvc://") {
            let (claim, path) = rest.split_once('/').ok_or_else(shape)?;
            let found = Self::Claim { claim: claim.to_owned(), path: path.to_owned() };
            return (is_name(claim) && safe(&format!("/{path}"))).then_some(found).ok_or_else(shape);
        }
        if let Some(rest) = REMOTE.iter().find_map(|scheme| text.strip_prefix(scheme)) {
            // What else may be wrong with it, `fetch` says in words that become the model's condition.
            let parts = if text.starts_with("hf://") { 3 } else { 2 };
            let names_a_file =
                rest.split('/').count() >= parts && rest.split('/').take(parts).all(|part| !part.is_empty());
            return names_a_file.then(|| Self::Remote { uri: text.to_owned() }).ok_or_else(shape);
        }
        Err(SourceError::Scheme(text.to_owned()))
    }
}

/// Whether Kubernetes takes it as a claim's name.
fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 253 && text.chars().all(inner) && ends(text.chars().next()) && ends(text.chars().last())
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { image, path } => write!(f, "oci://{image}#{path}"),
            Self::File { path } => write!(f, "file://{path}"),
            Self::Claim { claim, path } => write!(f, "pvc://{claim}/{path}"),
            Self::Remote { uri } => f.write_str(uri),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_are_obeyed() {
        for text in [
            "oci://registry.example/a/b:q8@sha256:0f#/model.gguf",
            "file:///models/x.gguf",
            "pvc://models-1/a/x.gguf",
            "https://example.com/x.gguf?version=1",
            "hf://org/model@main/x.gguf",
            "s3://bucket/a/x.gguf",
            "gs://bucket/x.gguf",
        ] {
            assert_eq!(Source::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn sources_that_are_not() {
        assert!(matches!(Source::parse("ftp://org/model"), Err(SourceError::Scheme(_))));
        for text in [
            "oci://image",
            "oci://#/x",
            "oci://image#x",
            "oci://image#/../etc/passwd",
            "file://x",
            "file:///",
            "pvc://models",
            "pvc://Models/x",
            "pvc://models/../x",
            "https://example.com",
            "s3://bucket/",
            "hf://org/model",
        ] {
            assert!(matches!(Source::parse(text), Err(SourceError::Shape(_))), "{text}");
        }
    }
}
