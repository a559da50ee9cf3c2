//! API keys: read from the Secrets that budgets name, kept as salted hashes only.

use crate::{clock, limits, names};
use futures::{StreamExt, stream};
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use quartermaster_core::units::Millis;
use quartermaster_crds::condition::Reason;
use quartermaster_crds::v1alpha1::TokenBudget;
use quartermaster_crds::v1alpha1::token_budget::ApiKeySecret;
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

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
    /// No answer in time.
    #[error("{what} Secret {object}: no answer within {} s", limits::KEY_TIMEOUT.as_secs())]
    Timeout {
        /// What was attempted.
        what: &'static str,
        /// `namespace/name`, or the namespace of a list.
        object: String,
    },
    /// Those before it took all the time.
    #[error("{what} Secret {object}: reading Secrets takes longer than {} s altogether", limits::KEYS_TIMEOUT.as_secs())]
    Late {
        /// What was attempted.
        what: &'static str,
        /// `namespace/name`, or the namespace of a list.
        object: String,
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

/// Until when one round of reading may take.
#[derive(Clone, Copy, Debug)]
struct Round(Instant);

impl Round {
    fn begin() -> Self {
        Self(Instant::now() + limits::KEYS_TIMEOUT)
    }

    /// A call within its own time and the round's.
    async fn timely<T>(
        self,
        what: &'static str,
        object: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let (now, object) = (Instant::now(), || object.to_owned());
        let own = now + limits::KEY_TIMEOUT;
        if now >= self.0 {
            return Err(Error::Late { what, object: object() });
        }
        match tokio::time::timeout_at(own.min(self.0), call).await {
            Ok(answer) => answer.map_err(|source| Error::Api { what, object: object(), source }),
            Err(_) if own > self.0 => Err(Error::Late { what, object: object() }),
            Err(_) => Err(Error::Timeout { what, object: object() }),
        }
    }
}

/// The salt; made and kept in a Secret when there is none.
pub async fn salt(client: &Client, namespace: &str) -> Result<Vec<u8>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let object = names::key(namespace, names::SALT_SECRET);
    let round = Round::begin();
    for _ in 0..2 {
        if let Some(secret) = round.timely("reading", &object, api.get_opt(names::SALT_SECRET)).await? {
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
        match round.timely("creating", &object, api.create(&PostParams::default(), &secret)).await {
            Ok(_) => {}
            // Another replica was quicker; its salt counts.
            Err(Error::Api { source: kube::Error::Api(status), .. }) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::NoSalt(object))
}

/// Reads the keys that budgets name. A subject that the API server refuses is its budget's fault and nobody else's; keys
/// that can't be read for now, or not in time, stay as they were `before`. Those come first in the next round.
pub async fn read(client: &Client, salt: &[u8], budgets: &Objects, before: Option<&Keys>) -> Result<Keys, Error> {
    let found = budgets.keys().map(|id| (id.clone(), Vec::new())).collect();
    let mut keys = Keys { salt: hex::encode(salt), at: clock::now(), found, ..Keys::default() };
    let mut subjects: Vec<Subject> = budgets.iter().flat_map(|(id, budget)| Subject::of(id, budget)).collect();
    subjects.sort_by_key(|subject| before.is_none_or(|before| !before.unread.contains_key(&subject.budget)));
    let round = Round::begin();
    let reads = subjects.into_iter().map(|subject| subject.read(client, round));
    let mut answers = stream::iter(reads).buffered(limits::KEYS_CONCURRENCY);
    let mut total = 0;
    while let Some((subject, answer)) = answers.next().await {
        let id = &subject.budget;
        let (named, lacking) = match answer {
            Ok(secrets) => pick(salt, &subject.namespace, &subject.secret, &secrets),
            Err(error) => {
                let fault = fault(error)?;
                let stays = before.filter(|_| fault.reason == Reason::SignalsMissing);
                keys.unread.insert(id.clone(), fault);
                (stays.and_then(|before| before.found.get(id)).cloned().unwrap_or_default(), Vec::new())
            }
        };
        total += named.len();
        if total <= limits::KEYS_MAX {
            keys.found.entry(id.clone()).or_default().extend(named);
        }
        if !lacking.is_empty() {
            keys.missing.entry(id.clone()).or_default().extend(lacking);
        }
    }
    for found in keys.found.values_mut() {
        found.sort_by(|a, b| (&a.hash, &a.subject).cmp(&(&b.hash, &b.subject)));
        found.dedup();
    }
    Ok(keys)
}

/// What the API server's no to one subject means for its budget, or its silence; a server that can't be reached ends the
/// round.
fn fault(error: Error) -> Result<Fault, Error> {
    let wrong = match &error {
        // A selector whose labels are none.
        Error::Api { source: kube::Error::Api(status), .. } => matches!(status.code, 400 | 422),
        Error::Timeout { .. } | Error::Late { .. } => false,
        Error::Api { .. } | Error::NoSalt(_) => return Err(error),
    };
    let reason = if wrong { Reason::InvalidSpec } else { Reason::SignalsMissing };
    Ok(Fault { reason, message: format!("spec.subjects: {}", crate::error::chain(&error)) })
}

/// One subject of a budget.
struct Subject {
    budget: String,
    namespace: String,
    secret: ApiKeySecret,
}

impl Subject {
    fn of(id: &str, budget: &TokenBudget) -> Vec<Self> {
        let secrets = budget.spec.subjects.iter().filter_map(|subject| subject.api_key_secret.clone());
        let namespace = budget.namespace().unwrap_or_default();
        secrets.map(|secret| Self { budget: id.to_owned(), namespace: namespace.clone(), secret }).collect()
    }

    async fn read(self, client: &Client, round: Round) -> (Self, Result<Vec<Secret>, Error>) {
        let answer = secrets(client, &self.namespace, &self.secret, round).await;
        (self, answer)
    }
}

async fn secrets(client: &Client, namespace: &str, subject: &ApiKeySecret, round: Round) -> Result<Vec<Secret>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    if let Some(name) = &subject.name {
        let found = round.timely("reading", &names::key(namespace, name), api.get_opt(name)).await?;
        return Ok(found.into_iter().collect());
    }
    let Some(selector) = &subject.selector else { return Ok(Vec::new()) };
    let labels: Vec<String> = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let by_label = ListParams::default().labels(&labels.join(","));
    Ok(round.timely("listing", namespace, api.list(&by_label)).await?.items)
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

    /// An API server that knows `demo/team-key`, dislikes every selector, fails at the Secret `broken` and says nothing
    /// about `silent`.
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
                path if path.ends_with("/silent") => std::future::pending().await,
                _ => status(400),
            };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(axum::http::Response::builder().status(code).body(body).unwrap())
        };
        Client::new(tower::service_fn(answer), "demo")
    }

    fn objects(budgets: impl IntoIterator<Item = TokenBudget>) -> Objects {
        budgets.into_iter().map(|b| (format!("demo/{}", b.name_any()), Arc::new(b))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_api_server_holds_nobody_up_and_old_keys_stay() {
        let silent = (0..100).map(|at| budget("demo", &format!("b{at:02}"), "silent", None));
        let budgets =
            objects(silent.chain([budget("demo", "a", "team-key", None), budget("demo", "z", "team-key", None)]));
        let old = || vec![Found { hash: "old".into(), subject: "demo/silent".into() }];
        let found = budgets.keys().map(|id| (id.clone(), old())).collect();
        let before = Keys { found, ..Keys::default() };
        let begin = Instant::now();
        let keys = read(&client(), b"salt", &budgets, Some(&before)).await.unwrap();
        assert_eq!(begin.elapsed().as_secs(), limits::KEYS_TIMEOUT.as_secs());
        let new = [Found { hash: hash(b"salt", b"sk-1"), subject: "demo/team-key".into() }];
        assert_eq!(keys.found["demo/a"], new);
        assert_eq!((&keys.found["demo/b00"], &keys.found["demo/z"]), (&old(), &old()));
        for (id, says) in [("demo/b00", "demo/silent: no answer within 3 s"), ("demo/z", "longer than 8 s")] {
            let fault = &keys.unread[id];
            assert!(fault.reason == Reason::SignalsMissing && fault.message.contains(says), "{}", fault.message);
        }
        let keys = read(&client(), b"salt", &budgets, Some(&keys)).await.unwrap();
        assert_eq!(keys.found["demo/a"], new, "not read this time");
        assert!(keys.unread.contains_key("demo/a"), "those that were not read come first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_salt_that_does_not_come_is_not_waited_for() {
        let silent = |_: axum::http::Request<kube::client::Body>| {
            std::future::pending::<Result<axum::http::Response<kube::client::Body>, std::convert::Infallible>>()
        };
        let error = salt(&Client::new(tower::service_fn(silent), "demo"), "qm").await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_subject_that_is_refused_stops_no_other_budget() {
        let mut bad = budget("demo", "bad", "x", None);
        bad.spec.subjects = serde_json::from_value(json!([
            {"apiKeySecret": {"selector": {"matchLabels": {"team": "not a label"}}}}, {"apiKeySecret": {"name": "team-key"}}
        ]))
        .unwrap();
        let good = budget("demo", "good", "team-key", None);
        let budgets = objects([bad, good, budget("demo", "later", "broken", None)]);
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
