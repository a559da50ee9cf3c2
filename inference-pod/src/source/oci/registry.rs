//! A registry's API: manifests, blobs, and how it lets one in.

use super::credentials::Credentials;
use crate::limits::{CREDENTIALS_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::source::hf::is_loopback;
use crate::source::http::{Advice, Http, body, refusal};
use crate::source::uri::OciFile;
use crate::source::{Digest, Kind, Result, SourceError};
use http::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Response, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";

/// One repository in a registry.
#[derive(Debug)]
pub(in crate::source) struct Registry {
    client: Client,
    base: Url,
    repository: String,
    place: String,
    advice: Advice,
    credentials: Option<Credentials>,
    /// What let the last request in.
    authorization: Mutex<Option<HeaderValue>>,
}

/// A token server's answer.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What a registry wants.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    /// A token of that server, for these parameters.
    Bearer(BTreeMap<String, String>),
}

impl Registry {
    pub(super) fn new(http: &Http, file: &OciFile, place: &str, credentials: Option<Credentials>) -> Result<Self> {
        let wrong = |what: String| {
            SourceError::new(Kind::Malformed, place, what, "write oci://HOST[:PORT]/REPOSITORY:TAG#/PATH")
        };
        let parse = |scheme: &str| {
            let text = format!("{scheme}://{}/", file.registry);
            let url = Url::parse(&text).map_err(|error| wrong(format!("registry {}: {error}", file.registry)))?;
            // A user or a path in the host's place would send requests elsewhere.
            let clean = url.path() == "/" && url.username().is_empty() && url.query().is_none();
            clean.then_some(url).ok_or_else(|| wrong(format!("registry {} is no host", file.registry)))
        };
        let secure = parse("https")?;
        // Registries on this machine speak HTTP, as docker and containerd take it.
        let base = if is_loopback(&secure) { parse("http")? } else { secure };
        Ok(Self {
            client: http.follows.clone(),
            base,
            repository: file.repository.clone(),
            place: place.to_owned(),
            advice: super::advice(file, credentials.is_some()),
            credentials,
            authorization: Mutex::default(),
        })
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn advice(&self) -> Advice {
        self.advice.clone()
    }

    /// A URL of the repository.
    pub(super) fn url(&self, rest: &str) -> Result<Url> {
        let joined = self.base.join(&format!("v2/{}/{rest}", self.repository));
        joined.map_err(|error| {
            SourceError::new(Kind::Malformed, self.place.as_str(), error.to_string(), "correct the repository's name")
        })
    }

    /// A manifest and its digest, which is checked where it was asked for by digest.
    pub(super) async fn manifest(&self, reference: &str) -> Result<(Vec<u8>, Digest)> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(MANIFESTS))]);
        let response = self.get(self.url(&format!("manifests/{reference}"))?, headers).await?;
        if !response.status().is_success() {
            return Err(refusal(&self.place, response, &self.advice).await);
        }
        let bytes = body(&self.place, response, MANIFEST_BYTES_MAX).await?;
        let digest = Digest::parse(&hex::encode(Sha256::digest(&bytes)))?;
        if reference.starts_with("sha256:") && Digest::parse(reference)? != digest {
            let what = format!("the manifest {reference} that came has the digest {digest}");
            return Err(SourceError::new(Kind::WrongContent, self.place.as_str(), what, "do not trust the registry"));
        }
        Ok((bytes, digest))
    }

    /// A GET that is let in: as before, or after doing what the registry asks for.
    pub(in crate::source) async fn get(&self, url: Url, headers: HeaderMap) -> Result<Response> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let response = self.send(url.clone(), headers.clone(), known).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(challenge) = challenge(response.headers()) else { return Ok(response) };
        let Some(authorization) = self.answer(challenge).await? else { return Ok(response) };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization.clone());
        self.send(url, headers, Some(authorization)).await
    }

    async fn send(&self, url: Url, mut headers: HeaderMap, authorization: Option<HeaderValue>) -> Result<Response> {
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        let sent = self.client.get(url).headers(headers).send().await;
        sent.map_err(|error| SourceError::network(self.place.as_str(), &error.without_url()))
    }

    async fn answer(&self, challenge: Challenge) -> Result<Option<HeaderValue>> {
        match challenge {
            Challenge::Basic => Ok(self.credentials.as_ref().and_then(Credentials::header)),
            Challenge::Bearer(parameters) => self.token(parameters).await.map(Some),
        }
    }

    async fn token(&self, mut parameters: BTreeMap<String, String>) -> Result<HeaderValue> {
        let wrong = |what: String| {
            let fix = "ask who runs the registry: its WWW-Authenticate can't be followed";
            SourceError::new(Kind::Unreachable, self.place.as_str(), what, fix)
        };
        let realm = parameters.remove("realm").ok_or_else(|| wrong("it names no token server".into()))?;
        let mut url = Url::parse(&realm).map_err(|error| wrong(format!("token server: {error}")))?;
        if url.scheme() != "https" && !is_loopback(&url) {
            return Err(wrong("its token server has no TLS".into()));
        }
        parameters.entry("scope".into()).or_insert_with(|| format!("repository:{}:pull", self.repository));
        parameters.retain(|name, _| matches!(name.as_str(), "service" | "scope"));
        url.query_pairs_mut().extend_pairs(&parameters);
        let header = self.credentials.as_ref().and_then(Credentials::header);
        let response = self.send(url, HeaderMap::new(), header).await?;
        if !response.status().is_success() {
            return Err(refusal(&self.place, response, &self.advice).await);
        }
        let bytes = body(&self.place, response, CREDENTIALS_BYTES_MAX).await?;
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|_| wrong("its token server sends no token".into()))?;
        let token =
            token.token.or(token.access_token).ok_or_else(|| wrong("its token server sends no token".into()))?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| wrong("its token server sends no token".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    texts.find_map(|text| {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer(parameters(rest))),
            _ => None,
        }
    })
}

/// `name="value",name="value"`, where values hold commas.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let (mut found, mut rest) = (BTreeMap::new(), text);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        let name = name.trim_matches(|c: char| c == ',' || c.is_whitespace()).to_ascii_lowercase();
        found.insert(name, value.to_owned());
        rest = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &'static str) -> Option<Challenge> {
        challenge(&HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static(text))]))
    }

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://a/token",service="r", scope="repository:a/b:pull,push",error=x"#;
        let Some(Challenge::Bearer(found)) = of(text) else { panic!("no bearer") };
        assert_eq!(found["realm"], "https://a/token");
        assert_eq!((found["scope"].as_str(), found["service"].as_str()), ("repository:a/b:pull,push", "r"));
        assert_eq!(found["error"], "x");
        assert_eq!(of("Basic realm=\"r\""), Some(Challenge::Basic));
        assert_eq!(of("Negotiate"), None);
        assert_eq!(of("Bearer"), Some(Challenge::Bearer(BTreeMap::new())));
        assert!(parameters("=,=\"").len() <= 1);
    }
}
