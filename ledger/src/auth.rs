//! The bearer token that our own components share.

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use quartermaster_core::wire::ledger::RefusalCode;
use std::path::Path;
use std::sync::Arc;
use subtle::ConstantTimeEq;

use crate::http::refuse;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("can't read the internal token file `{path}`: {source}")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// An empty token would let everybody in.
    #[error("the internal token file `{0}` is empty")]
    Empty(String),
}

/// The token, compared in constant time.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// Reads it from a file; space around it does not count.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| TokenError::Read { path: name(), source })?;
        match text.trim() {
            "" => Err(TokenError::Empty(name())),
            token => Ok(Self(token.into())),
        }
    }

    fn matches(&self, header: &str) -> bool {
        let Some((scheme, token)) = header.split_once(' ') else { return false };
        scheme.eq_ignore_ascii_case("bearer") && bool::from(token.trim().as_bytes().ct_eq(self.0.as_bytes()))
    }
}

/// Lets only those in who know the token.
pub async fn require(State(token): State<Token>, request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if header.is_some_and(|header| token.matches(header)) {
        return next.run(request).await;
    }
    let mut response =
        refuse(RefusalCode::Unauthorized, "send `Authorization: Bearer <internal token>`".to_owned()).into_response();
    response.headers_mut().insert("www-authenticate", axum::http::HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_matches() {
        let token = Token("secret".into());
        assert!(token.matches("Bearer secret") && token.matches("bearer secret"));
        for wrong in ["", "secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret"] {
            assert!(!token.matches(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_empty_or_missing_file_is_no_token() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        assert!(matches!(Token::read(&path), Err(TokenError::Read { .. })));
        std::fs::write(&path, " \n").expect("written");
        assert!(matches!(Token::read(&path), Err(TokenError::Empty(_))));
        std::fs::write(&path, "secret\n").expect("written");
        assert!(Token::read(&path).expect("a token").matches("Bearer secret"));
    }
}
