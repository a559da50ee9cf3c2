//! API keys: read from the Secrets that budgets name, kept as salted hashes only.

use crate::{clock, limits, names};
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use quartermaster_core::units::Millis;
use quartermaster_crds::condition::Reason;
use quartermaster_crds::v1alpha1::token_budget::ApiKeySecret;
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};

use crate::budgets::{Fault, Objects};

/// Bytes of the salt.
const SALT_BYTES: usize = 32;

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server said no, or could not be reached.
    #[error("{what} Secret {object}")]
    Api {
        /// What was attempted.
        what: &'static str,
        /// `namespace/name`, or the namespace of a list.
        object: String,
        /// Why.
        source: kube::Error,
    },
    /// The salt's Secret is there without a salt.
    #[error("reading Secret {0}: key {key} is missing or shorter than 16 bytes; delete the Secret to get a new salt", key = names::SALT_KEY)]
    NoSalt(String),
}

/// A key found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Hex of HMAC-SHA256(salt, key).
    pub hash: String,
    /// `namespace/secret`.
    pub subject: String,
}

/// Keys of every budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Hex of the salt.
    pub salt: String,
    /// By budget id.
    pub found: BTreeMap<String, Vec<Found>>,
    /// What a budget names and is not there, by budget id.
    pub missing: BTreeMap<String, Vec<String>>,
    /// Budgets with a subject that the API server did not answer.
    pub unread: BTreeMap<String, Fault>,
    /// When they were read.
    pub at: Millis,
}

impl Keys {
    /// Budgets that a hash belongs to; more than one is a conflict and the key is given to none.
    #[must_use]
    pub fn owners(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut owners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (budget, found) in &self.found {
            for key in found {
                owners.entry(&key.hash).or_default().insert(budget);
            }
        }
        owners
    }
}

/// The hash under which a gateway knows a key.
#[must_use]
pub fn hash(salt: &[u8], key: &[u8]) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("any length");
    mac.update(key);
    hex::encode(mac.finalize().into_bytes())
}

/// The salt; made and kept in a Secret when there is none.
pub async fn salt(client: &Client, namespace: &str) -> Result<Vec<u8>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let object = names::key(namespace, names::SALT_SECRET);
    let error = |what| {
        let object = object.clone();
        move |source| Error::Api { what, object, source }
    };
    for _ in 0..2 {
        if let Some(secret) = api.get_opt(names::SALT_SECRET).await.map_err(error("reading"))? {
            let salt = secret.data.and_then(|mut data| data.remove(names::SALT_KEY)).map(|bytes| bytes.0);
            return salt.filter(|salt| salt.len() >= 16).ok_or(Error::NoSalt(object));
        }
        // Two random UUIDs hold 244 random bits from the operating system.
        let salt: Vec<u8> = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()]
            .iter()
            .flat_map(|id| id.into_bytes())
            .take(SALT_BYTES)
            .collect();
        let labels = [(names::MANAGED_BY.to_owned(), names::FIELD_MANAGER.to_owned())].into();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(names::SALT_SECRET.to_owned()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            data: Some([(names::SALT_KEY.to_owned(), ByteString(salt))].into()),
            ..Secret::default()
        };
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => {}
            // Another replica was quicker; its salt counts.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(source) => return Err(error("creating")(source)),
        }
    }
    Err(Error::NoSalt(object))
}

/// Reads the keys that budgets name. A subject that the API server refuses is its budget's fault and nobody else's; keys
/// that can't be read for now stay as they were `before`.
pub async fn read(client: &Client, salt: &[u8], budgets: &Objects, before: Option<&Keys>) -> Result<Keys, Error> {
    let mut keys = Keys { salt: hex::encode(salt), at: clock::now(), ..Keys::default() };
    let mut total = 0;
    for (id, budget) in budgets {
        let namespace = budget.namespace().unwrap_or_default();
        let found = keys.found.entry(id.clone()).or_default();
        for subject in budget.spec.subjects.iter().filter_map(|subject| subject.api_key_secret.as_ref()) {
            let (named, lacking) = match secrets(client, &namespace, subject).await {
                Ok(secrets) => pick(salt, &namespace, subject, &secrets),
                Err(error) => {
                    let fault = fault(error)?;
                    let stays = before.filter(|_| fault.reason == Reason::SignalsMissing);
                    keys.unread.insert(id.clone(), fault);
                    (stays.and_then(|before| before.found.get(id)).cloned().unwrap_or_default(), Vec::new())
                }
            };
            total += named.len();
            if total <= limits::KEYS_MAX {
                found.extend(named);
            }
            if !lacking.is_empty() {
                keys.missing.entry(id.clone()).or_default().extend(lacking);
            }
        }
        found.sort_by(|a, b| (&a.hash, &a.subject).cmp(&(&b.hash, &b.subject)));
        found.dedup();
    }
    Ok(keys)
}

/// What the API server's no to one subject means for its budget; no answer at all ends the round.
fn fault(error: Error) -> Result<Fault, Error> {
    let Error::Api { source: kube::Error::Api(status), .. } = &error else { return Err(error) };
    // A selector whose labels are none.
    let wrong = matches!(status.code, 400 | 422);
    let reason = if wrong { Reason::InvalidSpec } else { Reason::SignalsMissing };
    Ok(Fault { reason, message: format!("spec.subjects: {}", crate::error::chain(&error)) })
}

async fn secrets(client: &Client, namespace: &str, subject: &ApiKeySecret) -> Result<Vec<Secret>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    if let Some(name) = &subject.name {
        let object = names::key(namespace, name);
        let found = api.get_opt(name).await.map_err(|source| Error::Api { what: "reading", object, source })?;
        return Ok(found.into_iter().collect());
    }
    let Some(selector) = &subject.selector else { return Ok(Vec::new()) };
    let labels: Vec<String> = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let by_label = ListParams::default().labels(&labels.join(","));
    let error = |source| Error::Api { what: "listing", object: namespace.to_owned(), source };
    Ok(api.list(&by_label).await.map_err(error)?.items)
}

/// Keys in the Secrets of one subject, and what is missing.
fn pick(salt: &[u8], namespace: &str, subject: &ApiKeySecret, secrets: &[Secret]) -> (Vec<Found>, Vec<String>) {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for secret in secrets {
        let name = names::key(namespace, &secret.name_any());
        let value = secret.data.as_ref().and_then(|data| data.get(&subject.key)).map(|bytes| trim(&bytes.0));
        match value.filter(|key| !key.is_empty()) {
            Some(key) => found.push(Found { hash: hash(salt, key), subject: name }),
            None => missing.push(format!("Secret {name} has no key {:?}", subject.key)),
        }
    }
    if secrets.is_empty() {
        missing.push(match &subject.name {
            Some(name) => format!("there is no Secret {}", names::key(namespace, name)),
            None => format!("no Secret in namespace {namespace} has the labels of the selector"),
        });
    }
    (found, missing)
}

/// Without the white space around it: `kubectl create secret --from-file` brings a line end along.
fn trim(key: &[u8]) -> &[u8] {
    key.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixtures::budget;
    use serde_json::json;
    use std::sync::Arc;

    fn secret(name: &str, key: &str, value: &str) -> Secret {
        Secret {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            data: Some([(key.to_owned(), ByteString(value.into()))].into()),
            ..Secret::default()
        }
    }

    fn subject() -> ApiKeySecret {
        ApiKeySecret { name: Some("team-key".into()), selector: None, key: "key".into() }
    }

    #[test]
    fn the_hash_is_hmac_sha256() {
        // RFC 4231, test case 2.
        let want = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hash(b"Jefe", b"what do ya want for nothing?"), want);
    }

    #[test]
    fn a_key_is_found_without_its_line_end_and_never_kept() {
        let (found, missing) = pick(b"salt", "demo", &subject(), &[secret("team-key", "key", "sk-1\n")]);
        assert_eq!(found, [Found { hash: hash(b"salt", b"sk-1"), subject: "demo/team-key".into() }]);
        assert!(missing.is_empty());
    }

    #[test]
    fn what_is_missing_is_named() {
        let (found, missing) = pick(b"salt", "demo", &subject(), &[secret("team-key", "other", "x")]);
        assert!(found.is_empty());
        assert_eq!(missing, ["Secret demo/team-key has no key \"key\""]);
        assert_eq!(pick(b"salt", "demo", &subject(), &[]).1, ["there is no Secret demo/team-key"]);
    }

    #[test]
    fn a_key_of_two_budgets_has_two_owners() {
        let found = || vec![Found { hash: "h".into(), subject: "demo/s".into() }];
        let keys =
            Keys { found: [("demo/a".to_owned(), found()), ("demo/b".to_owned(), found())].into(), ..Keys::default() };
        assert_eq!(keys.owners()["h"].len(), 2);
    }

    /// An API server that knows `demo/team-key`, dislikes every selector, and fails at the Secret `broken`.
    fn client() -> Client {
        let answer = |request: axum::http::Request<kube::client::Body>| async move {
            let status = |code: u16| {
                (
                    code,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "no", "code": code}),
                )
            };
            let (code, body) = match request.uri().path() {
                "/api/v1/namespaces/demo/secrets/team-key" => {
                    (200, serde_json::to_value(secret("team-key", "key", "sk-1")).unwrap())
                }
                path if path.ends_with("/broken") => status(500),
                _ => status(400),
            };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(axum::http::Response::builder().status(code).body(body).unwrap())
        };
        Client::new(tower::service_fn(answer), "demo")
    }

    #[tokio::test]
    async fn a_subject_that_is_refused_stops_no_other_budget() {
        let mut bad = budget("demo", "bad", "x", None);
        bad.spec.subjects = serde_json::from_value(json!([
            {"apiKeySecret": {"selector": {"matchLabels": {"team": "not a label"}}}}, {"apiKeySecret": {"name": "team-key"}}
        ]))
        .unwrap();
        let all = [bad, budget("demo", "good", "team-key", None), budget("demo", "later", "broken", None)];
        let budgets: Objects = all.into_iter().map(|b| (format!("demo/{}", b.name_any()), Arc::new(b))).collect();
        let old = || vec![Found { hash: "old".into(), subject: "demo/broken".into() }];
        let found = ["demo/bad", "demo/later"].map(|id| (id.to_owned(), old())).into();
        let before = Keys { found, ..Keys::default() };
        let keys = read(&client(), b"salt", &budgets, Some(&before)).await.unwrap();
        let new = [Found { hash: hash(b"salt", b"sk-1"), subject: "demo/team-key".into() }];
        assert_eq!((&keys.found["demo/bad"][..], &keys.found["demo/good"][..]), (&new[..], &new[..]));
        assert_eq!(keys.found["demo/later"], old(), "it may be read again in a moment");
        assert_eq!(keys.unread["demo/bad"].reason, Reason::InvalidSpec);
        assert_eq!(keys.unread["demo/later"].reason, Reason::SignalsMissing);
        assert_eq!(keys.unread.len(), 2);
    }
}
