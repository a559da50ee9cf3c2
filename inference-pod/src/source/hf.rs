//! Hugging Face's protocol: the resolve URL says hash, size and commit, and leads to the file.

use super::fetch::Options;
use super::http::{Access, Advice, Http, WebFile, digest, refusal, validator};
use super::remote::{Facts, Remote};
use super::{Kind, Result, SourceError};
use crate::limits::REDIRECTS_MAX;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION};
use http::{HeaderMap, HeaderValue};
use reqwest::{Response, Url};

const HASH: &str = "x-linked-etag";
const SIZE: &str = "x-linked-size";
const COMMIT: &str = "x-repo-commit";

/// Where the file is, and what it is.
pub(super) async fn resolve(
    http: &Http,
    options: &Options,
    (repository, revision, path): (&str, &str, &str),
) -> Result<(Remote, Facts)> {
    let place = format!("hf://{repository}@{revision}/{path}");
    let url = url(&options.hf_endpoint, repository, revision, path)?;
    let token = token(options, &url)?;
    let advice = advice(repository, path, token.is_some());
    let head = head(http, &place, url.clone(), token.as_ref()).await?;
    if !(head.status().is_success() || head.headers().contains_key(HASH)) {
        return Err(refusal(&place, head, &advice).await);
    }
    let headers = head.headers();
    let facts = facts(headers);
    // The commit, so that a push in the meantime does not mix two files.
    let commit = headers.get(COMMIT).and_then(|value| value.to_str().ok());
    let pinned = commit.and_then(|commit| self::url(&options.hf_endpoint, repository, commit, path).ok());
    let access = token.map_or(Access::Open, Access::Header);
    let file = WebFile { place, client: http.follows.clone(), url: pinned.unwrap_or(url), access, advice };
    Ok((Remote::Web(file), facts))
}

fn facts(headers: &HeaderMap) -> Facts {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse().ok();
    let digest = digest(headers, HASH);
    let bytes = number(SIZE).or_else(|| number(CONTENT_LENGTH.as_str()).filter(|_| digest.is_none()));
    let linked = headers.get(HASH).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Facts { bytes, digest, validator: linked.or_else(|| validator(headers)) }
}

/// Follows redirects within the host only: those to the storage don't say what the file is.
async fn head(http: &Http, place: &str, mut url: Url, token: Option<&HeaderValue>) -> Result<Response> {
    for _ in 0..=REDIRECTS_MAX {
        let mut headers = HeaderMap::new();
        headers.extend(token.map(|token| (AUTHORIZATION, token.clone())));
        let sent = http.stays.head(url.clone()).headers(headers).send().await;
        let response = sent.map_err(|error| SourceError::network(place, &error.without_url()))?;
        let target = response.headers().get(LOCATION).and_then(|to| url.join(to.to_str().ok()?).ok());
        match target.filter(|to| to.origin() == url.origin() && !response.headers().contains_key(HASH)) {
            Some(target) if response.status().is_redirection() => url = target,
            _ => return Ok(response),
        }
    }
    Err(SourceError::new(Kind::Unreachable, place, "too many redirects", "name the repository as it is called now"))
}

fn url(endpoint: &str, repository: &str, revision: &str, path: &str) -> Result<Url> {
    let wrong = |what: String| {
        let fix = "set HF_ENDPOINT to a URL such as https://huggingface.co";
        SourceError::new(Kind::Malformed, super::uri::shown(endpoint), what, fix)
    };
    let mut url = Url::parse(endpoint).map_err(|error| wrong(error.to_string()))?;
    url.path_segments_mut()
        .map_err(|()| wrong("it takes no path".into()))?
        .pop_if_empty()
        .extend(repository.split('/'))
        .extend(["resolve", revision])
        .extend(path.split('/'));
    Ok(url)
}

/// A token travels under TLS only, or stays on the machine.
fn token(options: &Options, url: &Url) -> Result<Option<HeaderValue>> {
    let Some(token) = options.hf_token.as_deref().filter(|token| !token.is_empty()) else { return Ok(None) };
    if url.scheme() != "https" && !is_loopback(url) {
        tracing::warn!(endpoint = %url.origin().ascii_serialization(), "the token is not sent: the endpoint has no TLS");
        return Ok(None);
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
        SourceError::new(Kind::Malformed, "HF_TOKEN", "it holds characters that no token has", "correct the Secret")
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Whether a URL is on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn advice(repository: &str, path: &str, with_token: bool) -> Advice {
    let denied = if with_token {
        format!("let the token in HF_TOKEN read {repository}; for a gated model, accept its terms on its page first")
    } else {
        format!("set HF_TOKEN to a token that may read {repository}, or correct the name: a private one looks the same")
    };
    Advice { denied, missing: format!("check that {repository} has {path} at that revision") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Digest;

    #[test]
    fn urls_are_made_as_the_hub_wants_them() {
        let made = |endpoint: &str| url(endpoint, "org/repo", "refs/pr/1", "a/x y.gguf").unwrap().to_string();
        assert_eq!(
            made("https://huggingface.co"),
            "https://huggingface.co/org/repo/resolve/refs%2Fpr%2F1/a/x%20y.gguf"
        );
        assert_eq!(made("https://h/mirror/"), "https://h/mirror/org/repo/resolve/refs%2Fpr%2F1/a/x%20y.gguf");
        assert!(url("h", "o/r", "main", "x").unwrap_err().to_string().contains("HF_ENDPOINT"));
    }

    #[test]
    fn large_files_have_a_hash_and_small_ones_a_version() {
        let header = |name: &'static str, value: String| (name.parse().unwrap(), HeaderValue::try_from(value).unwrap());
        let hash = Digest::of("x");
        let large = HeaderMap::from_iter([
            header(HASH, format!("\"{hash}\"")),
            header(SIZE, "7".into()),
            header("content-length", "1200".into()),
        ]);
        let validator = Some(format!("\"{hash}\""));
        assert_eq!(facts(&large), Facts { bytes: Some(7), digest: Some(hash), validator });
        let small = HeaderMap::from_iter([header("etag", "\"0a1b\"".into()), header("content-length", "12".into())]);
        assert_eq!(facts(&small), Facts { bytes: Some(12), digest: None, validator: Some("\"0a1b\"".into()) });
    }
}
