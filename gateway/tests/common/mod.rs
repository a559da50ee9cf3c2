//! A world around the gateway: an operator, a ledger and replicas as in-process peers on loopback.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use quartermaster_core::units::{Millis, NanoUsd, Tokens};
use quartermaster_core::wire::gateway::{ApiKey, Endpoint, GatewaySnapshot, ModelRoute, TokenLimits, TokenizerRef};
use quartermaster_core::wire::ledger::{Amount, Attempt, Done, Exhausted, Reserve, Reserved, Settle, Unit};
use quartermaster_core::wire::serve::TokenizerBundle;
use quartermaster_gateway::Gateway;
use quartermaster_gateway::args::Args;
use quartermaster_gateway::client::{Http, pool};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub const KEY: &str = "sk-demo";
pub const BROKE: &str = "sk-without-budget";

/// Serves a router until the test ends.
pub async fn serve(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Waits for what happens in the background, without sleeping longer than needed.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// ---- operator

#[derive(Debug)]
pub struct Operator {
    pub snapshot: watch::Sender<GatewaySnapshot>,
    pub wakes: Mutex<Vec<String>>,
    pub away: AtomicBool,
}

impl Operator {
    pub fn change(&self, change: impl FnOnce(&mut GatewaySnapshot)) {
        self.snapshot.send_modify(|snapshot| {
            snapshot.version += 1;
            change(snapshot);
        });
    }

    async fn start(snapshot: GatewaySnapshot) -> (Arc<Self>, SocketAddr) {
        let operator = Arc::new(Self {
            snapshot: watch::channel(snapshot).0,
            wakes: Mutex::default(),
            away: AtomicBool::new(false),
        });
        let router = axum::Router::new()
            .route("/v1/gateway-snapshot", get(Self::poll))
            .route("/v1/wake/{namespace}/{model}", post(Self::wake))
            .with_state(Arc::clone(&operator));
        (operator, serve(router).await)
    }

    async fn poll(
        State(operator): State<Arc<Self>>,
        Query(query): Query<HashMap<String, u64>>,
        headers: HeaderMap,
    ) -> Response {
        assert_eq!(headers["authorization"], "Bearer internal");
        if operator.away.load(Ordering::SeqCst) {
            return StatusCode::BAD_GATEWAY.into_response();
        }
        let mut snapshots = operator.snapshot.subscribe();
        let news = snapshots.wait_for(|snapshot| snapshot.version != query["after"]);
        match tokio::time::timeout(Duration::from_millis(500), news).await {
            Ok(snapshot) => Json(snapshot.unwrap().clone()).into_response(),
            Err(_) => StatusCode::NOT_MODIFIED.into_response(),
        }
    }

    async fn wake(State(operator): State<Arc<Self>>, Path((namespace, model)): Path<(String, String)>) {
        operator.wakes.lock().unwrap().push(format!("{namespace}/{model}"));
    }
}

// ---- ledger

#[derive(Debug, Default)]
pub struct Accounts {
    pub limit: u64,
    pub held: BTreeMap<String, u64>,
    pub settled: BTreeMap<String, Settle>,
    pub released: Vec<String>,
    pub reserved: Vec<Reserve>,
    /// The most that was ever settled and held together.
    pub peak: u64,
}

impl Accounts {
    pub fn used(&self) -> u64 {
        self.settled.values().map(|settle| settle.actual.tokens.0).sum()
    }

    pub fn only(&self) -> &Settle {
        assert_eq!(self.settled.len(), 1, "{:?}", self.settled);
        self.settled.values().next().unwrap()
    }
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub accounts: Mutex<Accounts>,
    pub away: AtomicBool,
}

impl Ledger {
    async fn start(limit: u64) -> (Arc<Self>, SocketAddr) {
        let ledger = Arc::new(Self::default());
        ledger.accounts.lock().unwrap().limit = limit;
        let router = axum::Router::new()
            .route("/v1/reserve", post(Self::reserve))
            .route("/v1/settle", post(Self::settle))
            .route("/v1/release", post(Self::release))
            .route("/v1/extend", post(Self::release))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&ledger), Self::gate))
            .with_state(Arc::clone(&ledger));
        (ledger, serve(router).await)
    }

    async fn gate(State(ledger): State<Arc<Self>>, request: Request, next: axum::middleware::Next) -> Response {
        assert_eq!(request.headers()["authorization"], "Bearer internal");
        if ledger.away.load(Ordering::SeqCst) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        next.run(request).await
    }

    async fn reserve(State(ledger): State<Arc<Self>>, Json(reserve): Json<Reserve>) -> Json<Reserved> {
        let mut accounts = ledger.accounts.lock().unwrap();
        let held: u64 = accounts.held.values().sum();
        let settled = accounts.used();
        let free = accounts.limit.saturating_sub(settled + held);
        accounts.reserved.push(reserve.clone());
        if free < reserve.at_least.tokens.0 {
            let i64 = |n: u64| i64::try_from(n).unwrap();
            return Json(Reserved::Exhausted(Exhausted {
                budget: "demo/team".into(),
                window: "day".into(),
                unit: Unit::Tokens,
                limit: i64(accounts.limit),
                settled: i64(settled),
                held: i64(held),
                retry_after: (reserve.at_least.tokens.0 <= accounts.limit).then_some(Millis(90_500)),
            }));
        }
        let grant = reserve.want.tokens.0.min(free);
        accounts.held.insert(reserve.attempt, grant);
        accounts.peak = accounts.peak.max(settled + held + grant);
        Json(Reserved::Granted { held: Amount { tokens: Tokens(grant), nano_usd: NanoUsd::ZERO } })
    }

    async fn settle(State(ledger): State<Arc<Self>>, Json(settle): Json<Settle>) -> Json<Done> {
        let mut accounts = ledger.accounts.lock().unwrap();
        if accounts.settled.contains_key(&settle.attempt) {
            return Json(Done::AlreadyDone);
        }
        accounts.held.remove(&settle.attempt);
        accounts.settled.insert(settle.attempt.clone(), settle);
        Json(Done::Applied)
    }

    async fn release(State(ledger): State<Arc<Self>>, Json(attempt): Json<Attempt>) -> Json<Done> {
        if attempt.lease.is_none() {
            let mut accounts = ledger.accounts.lock().unwrap();
            accounts.held.remove(&attempt.attempt);
            accounts.released.push(attempt.attempt);
        }
        Json(Done::Applied)
    }
}

// ---- engine

type Script = dyn Fn(usize, Value) -> Response + Send + Sync;

pub struct Engine {
    pub address: SocketAddr,
    pub bodies: Mutex<Vec<Value>>,
    pub headers: Mutex<Vec<HeaderMap>>,
    pub bundles: AtomicUsize,
    script: Box<Script>,
}

impl Engine {
    /// A replica that answers the n-th request as the script says.
    pub async fn start(script: impl Fn(usize, Value) -> Response + Send + Sync + 'static) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (bodies, headers) = Default::default();
        let engine =
            Arc::new(Self { address, bodies, headers, bundles: AtomicUsize::new(0), script: Box::new(script) });
        let router = axum::Router::new()
            .route("/v1/chat/completions", post(Self::generate))
            .route("/v1/completions", post(Self::generate))
            .route("/tokenizer", get(Self::tokenizer))
            .with_state(Arc::clone(&engine));
        tokio::spawn(async move { axum::serve(listener, router).await });
        engine
    }

    /// Answers as many words as it may.
    pub async fn answering(words: u64) -> Arc<Self> {
        Self::start(move |_, body| answer(&body, words)).await
    }

    /// Streams these pieces, as they are.
    pub async fn streaming(pieces: Vec<Bytes>) -> Arc<Self> {
        Self::start(move |_, _| events(futures::stream::iter(pieces.clone().into_iter().map(Ok)))).await
    }

    async fn generate(State(engine): State<Arc<Self>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
        let turn = {
            let mut bodies = engine.bodies.lock().unwrap();
            bodies.push(body.clone());
            engine.headers.lock().unwrap().push(headers);
            bodies.len() - 1
        };
        (engine.script)(turn, body)
    }

    async fn tokenizer(State(engine): State<Arc<Self>>) -> Json<TokenizerBundle> {
        engine.bundles.fetch_add(1, Ordering::SeqCst);
        Json(bundle())
    }

    pub fn body(&self, turn: usize) -> Value {
        self.bodies.lock().unwrap()[turn].clone()
    }

    pub fn calls(&self) -> usize {
        self.bodies.lock().unwrap().len()
    }
}

pub fn events(pieces: impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static) -> Response {
    ([("content-type", "text/event-stream")], axum::body::Body::from_stream(pieces)).into_response()
}

/// A whole answer; counts the prompt as the test's tokenizer does.
pub fn answer(body: &Value, words: u64) -> Response {
    let prompt = match &body["prompt"] {
        Value::String(text) => text.split_whitespace().count(),
        Value::Array(ids) => ids.len(),
        _ => {
            let messages = body["messages"].as_array().unwrap();
            let words = messages.iter().map(|m| 1 + m["content"].as_str().unwrap().split_whitespace().count());
            words.sum::<usize>() + 1
        }
    };
    let (asked, choices) = (body["max_tokens"].as_u64().unwrap(), body["n"].as_u64().unwrap_or(1));
    let completion = asked.min(words) * choices;
    let finish = if asked < words { "length" } else { "stop" };
    Json(json!({
        "object": "chat.completion", "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x ".repeat(usize::try_from(completion).unwrap())}, "finish_reason": finish}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt as u64 + completion},
    }))
    .into_response()
}

/// Every word is a token; a chat costs one for each message, one for each tool and one for the answer's begin.
pub fn bundle() -> TokenizerBundle {
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
    });
    let mut bundle = TokenizerBundle {
        hash: String::new(),
        tokenizer_json: tokenizer.to_string(),
        chat_template: Some("{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}{% for t in tools or [] %}{{ t.function.name }} {% endfor %}assistant".into()),
        bos_token: None,
        eos_token: None,
        add_bos: false,
        add_eos: false,
        context_tokens: 100,
    };
    bundle.hash = hex::encode(Sha256::digest(bundle.content()));
    bundle
}

// ---- the world

pub struct World {
    pub operator: Arc<Operator>,
    pub ledger: Arc<Ledger>,
    pub args: Args,
    pub http: Http,
    pub gateway: Option<Gateway>,
    pub state: TempDir,
}

/// HMAC-SHA256 under the salt `00`.
pub fn hash(key: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<Sha256>::new_from_slice(&[0]).unwrap();
    mac.update(key.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

pub fn endpoint(address: SocketAddr) -> Endpoint {
    let (variant, hardware_class) = ("q8".into(), "cpu-standard".into());
    Endpoint {
        address: address.to_string(),
        pod: address.to_string(),
        variant,
        hardware_class,
        slots: 4,
        draining: false,
    }
}

pub fn tokenizer(engines: &[SocketAddr]) -> Option<TokenizerRef> {
    let urls = engines.iter().map(|address| format!("http://{address}/tokenizer")).collect();
    Some(TokenizerRef { hash: bundle().hash, urls })
}

pub fn snapshot(engines: &[SocketAddr]) -> GatewaySnapshot {
    let route = |namespace: &str, name: &str| ModelRoute {
        namespace: namespace.into(),
        name: name.into(),
        public_name: "org/smol".into(),
        limits: TokenLimits { max_prompt: Some(Tokens(50)), max_completion: Some(Tokens(20)), max_context: Tokens(60) },
        tokenizer: tokenizer(engines),
        endpoints: engines.iter().copied().map(endpoint).collect(),
        wake_deadline: Millis(300),
        unavailable_because: Some("asleep: no request for 5 min".into()),
    };
    let key = |subject: &str, budgets: &[&str]| ApiKey {
        namespace: "demo".into(),
        subject: subject.into(),
        budgets: budgets.iter().map(|&budget| budget.to_owned()).collect(),
    };
    GatewaySnapshot {
        epoch: 1,
        version: 1,
        key_salt: "00".into(),
        models: [("demo/chat".into(), route("demo", "chat")), ("other/secret".into(), route("other", "secret"))].into(),
        keys: [(hash(KEY), key("demo/alice", &["demo/team"])), (hash(BROKE), key("demo/bob", &[]))].into(),
    }
}

impl World {
    pub async fn new(engines: &[SocketAddr]) -> Self {
        Self::with_budget(engines, 1_000_000).await
    }

    pub async fn with_budget(engines: &[SocketAddr], limit: u64) -> Self {
        let mut world = Self::peers(engines, limit).await;
        world.start().await;
        world
    }

    /// Everything but the gateway.
    pub async fn peers(engines: &[SocketAddr], limit: u64) -> Self {
        let (operator, operator_at) = Operator::start(snapshot(engines)).await;
        let (ledger, ledger_at) = Ledger::start(limit).await;
        let state = TempDir::new().unwrap();
        let token = state.path().join("token");
        std::fs::write(&token, "internal\n").unwrap();
        let args = Args {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            operator_url: format!("http://{operator_at}"),
            ledger_url: format!("http://{ledger_at}/"),
            internal_token_file: token,
            state_dir: state.path().join("state"),
            drain_seconds: 5,
            request_timeout_seconds: 600,
            threads: 0,
        };
        Self { operator, ledger, args, http: pool(), gateway: None, state }
    }

    pub async fn start(&mut self) {
        let gateway = Gateway::start(&self.args).await.unwrap();
        let admin = gateway.admin;
        self.gateway = Some(gateway);
        for _ in 0..1000 {
            if self.get(admin, "/readyz").await.0 == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the gateway is never ready");
    }

    pub async fn stop(&mut self) {
        self.gateway.take().unwrap().stop(Duration::ZERO, Duration::from_secs(5)).await;
    }

    pub fn public(&self) -> SocketAddr {
        self.gateway.as_ref().unwrap().public
    }

    pub async fn get(&self, address: SocketAddr, path: &str) -> (u16, String) {
        let request = http::Request::get(format!("http://{address}{path}")).body(Full::default()).unwrap();
        let response = self.http.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub async fn metric(&self, line: &str) -> Option<f64> {
        let (_, page) = self.get(self.gateway.as_ref().unwrap().admin, "/metrics").await;
        page.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
    }

    /// Sends anything to the public port.
    pub async fn send(&self, request: http::Request<Full<Bytes>>) -> http::Response<hyper::body::Incoming> {
        self.http.request(request).await.unwrap()
    }

    pub fn request(&self, path: &str, key: &str, body: &Value) -> http::Request<Full<Bytes>> {
        http::Request::post(format!("http://{}{path}", self.public()))
            .header("authorization", format!("Bearer {key}"))
            .body(Full::from(body.to_string()))
            .unwrap()
    }

    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Reply {
        Reply::read(self.send(self.request(path, key, body)).await).await
    }

    /// A chat with a prompt of five tokens.
    pub async fn chat(&self, more: Value) -> Reply {
        self.post("/v1/chat/completions", KEY, &chat(more)).await
    }
}

pub fn chat(more: Value) -> Value {
    let mut body = json!({"model": "chat", "messages": [{"role": "user", "content": "one two three"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Reply {
    pub async fn read(response: http::Response<hyper::body::Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Self { status: head.status.as_u16(), headers: head.headers, bytes }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }
}
