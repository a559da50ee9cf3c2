//! Credentials for a registry, out of a docker `config.json`.

use crate::limits::CREDENTIALS_BYTES_MAX;
use crate::source::{Kind, Result, SourceError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: String,
    password: String,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// Reads the file that is named, or else docker's own places; no file there means no credentials.
    pub(super) fn find(named: Option<&Path>, registry: &str, repository: &str) -> Result<Option<Self>> {
        let Some(path) = named.map(Path::to_owned).or_else(usual).filter(|path| named.is_some() || path.exists())
        else {
            return Ok(None);
        };
        let wrong = |what: String| {
            let fix = "give a docker config.json by --docker-config (QM_DOCKER_CONFIG)";
            SourceError::new(Kind::Malformed, path.display().to_string(), what, fix)
        };
        let text = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        if text.len() > CREDENTIALS_BYTES_MAX {
            return Err(wrong(format!("longer than {CREDENTIALS_BYTES_MAX} bytes")));
        }
        Self::parse(&text, registry, repository).map_err(wrong)
    }

    fn parse(text: &[u8], registry: &str, repository: &str) -> Result<Option<Self>, String> {
        let config: Config = serde_json::from_slice(text).map_err(|error| {
            // The text around the fault may be a secret.
            format!("it is no docker config: line {}, column {}", error.line(), error.column())
        })?;
        let hub = registry == "registry-1.docker.io";
        let means = |key: &str| {
            let bare = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
            let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
            let inside = bare.strip_prefix(registry).and_then(|rest| rest.strip_prefix('/'));
            let path = inside.is_some_and(|path| repository == path || repository.starts_with(&format!("{path}/")));
            bare == registry || path || (hub && matches!(bare, "docker.io" | "index.docker.io"))
        };
        // The longest name is the nearest.
        let auth = config.auths.iter().filter(|(key, _)| means(key)).max_by_key(|(key, _)| key.len());
        auth.map_or(Ok(None), |(key, auth)| {
            auth.read().ok_or_else(|| format!("its entry for {key} holds no name and password")).map(Some)
        })
    }

    /// The header of basic authentication.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let encoded = STANDARD.encode(format!("{}:{}", self.user, self.password));
        let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Auth {
    fn read(&self) -> Option<Credentials> {
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Some(Credentials { user: user.clone(), password: password.clone() });
        }
        let text = String::from_utf8(STANDARD.decode(self.auth.as_deref()?.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Credentials { user: user.to_owned(), password: password.to_owned() })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

fn usual() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_nearest_entry_counts() {
        let auth = |user: &str| json!({"auth": STANDARD.encode(format!("{user}:pass:word"))});
        let text = json!({"auths": {
            "https://index.docker.io/v1/": auth("hub"), "r.example:5000": auth("all"), "r.example:5000/team": auth("team"),
            "plain.example": {"username": "u", "password": "p"}, "broken.example": {"auth": "!"},
        }})
        .to_string();
        let user = |registry: &str, repository: &str| {
            Credentials::parse(text.as_bytes(), registry, repository).unwrap().map(|found| found.user)
        };
        assert_eq!(user("registry-1.docker.io", "library/a").unwrap(), "hub");
        assert_eq!(user("r.example:5000", "other/a").unwrap(), "all");
        assert_eq!(user("r.example:5000", "team/a").unwrap(), "team");
        assert_eq!(user("r.example:5000", "teams/a").unwrap(), "all");
        assert_eq!(user("plain.example", "a").unwrap(), "u");
        assert_eq!(user("r.example", "a"), None);
        assert!(Credentials::parse(text.as_bytes(), "broken.example", "a").unwrap_err().contains("broken.example"));
        let found = Credentials::parse(text.as_bytes(), "r.example:5000", "a").unwrap().unwrap();
        assert_eq!(found.password, "pass:word");
        assert!(!format!("{found:?}").contains("pass"));
    }

    #[test]
    fn a_named_file_must_be_there() {
        let error = Credentials::find(Some(Path::new("/nowhere/config.json")), "h", "r").unwrap_err();
        assert!(error.to_string().contains("/nowhere/config.json"), "{error}");
        assert!(!Credentials::parse(br#"{"auths": "secret"}"#, "h", "r").unwrap_err().contains("secret"));
    }
}
