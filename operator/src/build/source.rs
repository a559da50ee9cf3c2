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
}

/// Why a source is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A scheme that is not obeyed yet.
    #[error("source {0}: this version fetches oci://IMAGE#/path and file:///path only")]
    Scheme(String),
    /// Image or path is missing, or the path leaves its root.
    #[error("source {0}: write oci://IMAGE#/path/model.gguf or file:///path/model.gguf, without .. in the path")]
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
        Err(SourceError::Scheme(text.to_owned()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { image, path } => write!(f, "oci://{image}#{path}"),
            Self::File { path } => write!(f, "file://{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_are_obeyed() {
        for text in ["oci://registry.example/a/b:q8@sha256:0f#/model.gguf", "file:///models/x.gguf"] {
            assert_eq!(Source::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn sources_that_are_not() {
        assert!(matches!(Source::parse("hf://org/model"), Err(SourceError::Scheme(_))));
        for text in ["oci://image", "oci://#/x", "oci://image#x", "oci://image#/../etc/passwd", "file://x", "file:///"]
        {
            assert!(matches!(Source::parse(text), Err(SourceError::Shape(_))), "{text}");
        }
    }
}
