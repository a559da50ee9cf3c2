//! A server in this process, on loopback: the real API and driver, with an engine of the test's choice.

use quartermaster_core::chat::ChatTemplate;
use quartermaster_core::wire::serve::{ServeConfig, TokenizerBundle, VariantFile};
use quartermaster_inference_pod::api::form::Forms;
use quartermaster_inference_pod::api::router;
use quartermaster_inference_pod::api::state::{App, Loaded};
use quartermaster_inference_pod::driver::{Driver, Message};
use quartermaster_inference_pod::engine::{Engine, EngineError, Row, Vocabulary};
use quartermaster_inference_pod::kv::{KvOp, Sequence};
use quartermaster_inference_pod::metrics::Metrics;
use quartermaster_inference_pod::sampler::Token;
use quartermaster_inference_pod::scheduler::{Capacity, KvCapacity, Sharing};
use quartermaster_inference_pod::tokenizer::{Specials, TokenizerError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Tokens are bytes; 0 ends an answer.
pub const END: Token = 0;

/// Bytes as tokens.
pub struct Bytes;

impl Vocabulary for Bytes {
    fn tokenize(&self, text: &str) -> Vec<Token> {
        text.bytes().map(Token::from).collect()
    }
    fn piece(&self, token: Token) -> Vec<u8> {
        vec![u8::try_from(token).unwrap()]
    }
    fn ends(&self, token: Token) -> bool {
        token == END
    }
    fn specials(&self) -> Specials {
        Specials { eos: Some(END), ..Specials::default() }
    }
    fn longest_token_bytes(&self) -> usize {
        1
    }
    fn tokens(&self) -> usize {
        256
    }
}

/// What the test sees of the engine.
#[derive(Default)]
pub struct Seen {
    pub steps: AtomicU64,
    pub rows_max: AtomicU64,
    pub slots_max: AtomicU64,
    pub fail: AtomicBool,
    pub slow: Mutex<Duration>,
}

/// In a script: any small letter, all equally likely.
pub const ANY: u8 = b'?';

/// Answers each prompt with the script, then ends. It checks the driver: positions must follow on, slots must be cleared.
pub struct Script {
    answer: Vec<u8>,
    /// Per sequence: the rows it holds, and the place in the answer once the prompt is whole.
    slots: BTreeMap<Sequence, (u32, Option<usize>)>,
    seen: Arc<Seen>,
}

impl Engine for Script {
    fn step(&mut self, rows: &[Row], read: &mut dyn FnMut(usize, &[f32])) -> Result<Duration, EngineError> {
        std::thread::sleep(*self.seen.slow.lock().unwrap());
        if self.seen.fail.swap(false, Ordering::SeqCst) {
            return Err(EngineError { attempt: "computing a batch", cause: "told to fail".into() });
        }
        self.seen.steps.fetch_add(1, Ordering::SeqCst);
        self.seen.rows_max.fetch_max(u64::try_from(rows.len()).unwrap(), Ordering::SeqCst);
        for (index, row) in rows.iter().enumerate() {
            let state = self.slots.entry(row.sequence).or_default();
            assert_eq!(row.position, state.0, "positions must follow on in sequence {}", row.sequence);
            state.0 += 1;
            if row.logits {
                let at = state.1.map_or(0, |at| at + 1);
                state.1 = Some(at);
                let token = self.answer.get(at).copied().unwrap_or(0);
                let mut logits = [0_f32; 256];
                match token {
                    ANY => logits[97..123].fill(50.0),
                    token => logits[usize::from(token)] = 50.0,
                }
                read(index, &logits);
            }
        }
        let busy = u64::try_from(self.slots.len()).unwrap();
        self.seen.slots_max.fetch_max(busy, Ordering::SeqCst);
        Ok(Duration::ZERO)
    }

    fn apply(&mut self, op: KvOp) -> Result<(), EngineError> {
        match op {
            KvOp::Keep { sequence, tokens } => {
                let state = self.slots.entry(sequence).or_default();
                *state = (state.0.min(u32::try_from(tokens).unwrap()), None);
            }
            KvOp::Copy { to, tokens, .. } => {
                self.slots.insert(to, (u32::try_from(tokens).unwrap(), None));
            }
        }
        Ok(())
    }
}

pub struct Server {
    pub url: String,
    pub app: Arc<App>,
    pub seen: Arc<Seen>,
    pub http: reqwest::Client,
}

pub fn config(slots: u32, context: u32) -> ServeConfig {
    let file = VariantFile { name: "v".into(), path: "/model.gguf".into(), precision: "F32".into() };
    ServeConfig {
        model: "test".into(),
        namespace: "demo".into(),
        variants: vec![file],
        variant: "v".into(),
        draft: None,
        context_tokens: context,
        slots,
        memory_limit_bytes: None,
        hardware_class: "cpu".into(),
        devices: 1,
        threads: None,
    }
}

fn rules() -> TokenizerBundle {
    TokenizerBundle {
        hash: "h".into(),
        tokenizer_json: String::new(),
        chat_template: None,
        bos_token: None,
        eos_token: None,
        add_bos: false,
        add_eos: false,
        context_tokens: 64,
    }
}

impl Server {
    /// The API without a model.
    pub async fn loading(slots: u32, context: u32) -> Self {
        let app = Arc::new(App::new(config(slots, context), Arc::new(Metrics::new("test"))));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = router(Arc::clone(&app), None);
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, app, seen: Arc::default(), http: reqwest::Client::new() }
    }

    /// The API with an engine that answers as scripted.
    pub async fn scripted(slots: u32, context: u32, answer: &str) -> Self {
        let server = Self::loading(slots, context).await;
        let engine =
            Script { answer: answer.as_bytes().to_vec(), slots: BTreeMap::new(), seen: Arc::clone(&server.seen) };
        let (inbox, messages) = std::sync::mpsc::channel();
        let size = |n: u32| usize::try_from(n).unwrap();
        let capacity = Capacity {
            places: size(slots),
            context: size(context),
            kv: KvCapacity { sequences: size(slots), cells: size(slots * context), sharing: Sharing::Cells },
            queue: usize::try_from(slots).unwrap() * 16,
        };
        let metrics = Arc::clone(&server.app.metrics);
        std::thread::spawn(move || Driver::new(engine, Arc::new(Bytes), metrics, capacity).run(&messages));
        let source = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
        let template = ChatTemplate::new(source, None, None);
        server.app.serve(Arc::new(Loaded {
            variant: "v".into(),
            way: (true, Sharing::Cells),
            vocabulary: Arc::new(Bytes),
            bundle: Err(TokenizerError::Unsupported("bytes".into())),
            template: Arc::new(template),
            rules: Arc::new(rules()),
            inbox,
            forms: Forms::default(),
            embedder: None,
        }));
        server
    }

    pub fn slow(&self, step: Duration) {
        *self.seen.slow.lock().unwrap() = step;
    }

    pub fn stop(&self) {
        self.app.current().unwrap().inbox.send(Message::Stop).unwrap();
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let response = self.http.post(format!("{}{path}", self.url)).body(body.to_string()).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// The `data:` lines of a stream.
    pub async fn stream(&self, path: &str, body: Value) -> Vec<String> {
        let response = self.http.post(format!("{}{path}", self.url)).body(body.to_string()).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = response.text().await.unwrap();
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    /// Waits, at most ten seconds, until every place is free.
    pub async fn idle(&self) {
        for _ in 0..500 {
            if self.app.in_flight() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} places were never given back", self.app.in_flight());
    }

    /// A number from `/metrics`.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits, at most ten seconds, until a metric has this value.
    pub async fn await_metric(&self, name: &str, wanted: f64) {
        for _ in 0..500 {
            if (self.metric(name).await - wanted).abs() < 1e-9 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} is {} and never became {wanted}", self.metric(name).await);
    }
}
