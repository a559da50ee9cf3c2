//! SHA-256, the name of a content.

use super::error::SourceError;
use super::{Kind, Result};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};

const CHUNK: usize = 256 * 1024;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Parses 64 hex digits, with or without `sha256:` before them.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| {
            let what = "it is no SHA-256";
            SourceError::new(
                Kind::Malformed,
                format!("hash {text}"),
                what,
                "write 64 hex digits, as sha256sum prints them",
            )
        })?;
        Ok(Self(bytes))
    }

    /// Of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes what passes by.
#[derive(Clone, Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    /// Takes in the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes in a file from where it stands, at most `bytes`; says how many there were.
    pub(super) fn read(&mut self, file: &mut File, bytes: u64) -> io::Result<u64> {
        let mut buffer = vec![0; CHUNK];
        let (mut limited, mut total) = (file.take(bytes), 0);
        loop {
            let count = limited.read(&mut buffer)?;
            if count == 0 {
                return Ok(total);
            }
            self.update(buffer.get(..count).unwrap_or_default());
            total += u64::try_from(count).unwrap_or_default();
        }
    }

    /// The hash of all that was taken in.
    pub(super) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of("").to_string(), empty);
        assert_eq!(Digest::parse(&format!("sha256:{empty}")).unwrap(), Digest::of(""));
        for wrong in ["", "e3b0", "sha512:00", &format!("{empty}00"), &empty.replace('e', "g")] {
            assert_eq!(Digest::parse(wrong).unwrap_err().kind, Kind::Malformed, "{wrong}");
        }
    }
}
