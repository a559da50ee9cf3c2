//! The API over sockets: authentication, errors, HTTP/1.1 and h2c.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod common;

use common::{ask, daily, granted, settle};
use quartermaster_core::wire::ledger::{
    Balance, Budgets, Done, Metered, Refusal, RefusalCode, Reserved, Spend, SpendTotal, UsagePage,
};
use quartermaster_ledger::args::Args;
use quartermaster_ledger::clock::Clock;
use quartermaster_ledger::server::Ledger;
use reqwest::{Client, RequestBuilder, StatusCode, Version};
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const TOKEN: &str = "a secret between us";

struct Served {
    _dir: TempDir,
    api: String,
    admin: String,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<anyhow::Result<()>>,
    client: Client,
}

impl Served {
    async fn start(client: Client) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let token = dir.path().join("token");
        std::fs::write(&token, format!("{TOKEN}\n")).expect("written");
        let any = "127.0.0.1:0".parse().expect("an address");
        let data_dir = dir.path().join("data");
        let args = Args { listen: any, admin_listen: any, data_dir, internal_token_file: token, log: String::new() };
        let ledger = Ledger::open(&args, Clock::system()).await.expect("a ledger");
        let (api, admin) = ledger.addresses().expect("addresses");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(ledger.serve(async move {
            let _ = stopped.await;
        }));
        let (api, admin) = (format!("http://{api}"), format!("http://{admin}"));
        Self { _dir: dir, api, admin, stop: Some(stop), serving, client }
    }

    fn put(&self, path: &str, body: &impl Serialize) -> RequestBuilder {
        self.client.put(format!("{}{path}", self.api)).bearer_auth(TOKEN).json(body)
    }

    fn post(&self, path: &str, body: &impl Serialize) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.api)).bearer_auth(TOKEN).json(body)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.api)).bearer_auth(TOKEN)
    }

    async fn budgets(&self, epoch: u64, tokens: u64) -> StatusCode {
        let body = Budgets { epoch, budgets: vec![daily("demo/team", tokens)] };
        self.put("/v1/budgets", &body).send().await.expect("an answer").status()
    }
}

async fn answer<T: serde::de::DeserializeOwned>(request: RequestBuilder) -> T {
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.expect("JSON")
}

async fn refused(request: RequestBuilder) -> (StatusCode, Refusal) {
    let response = request.send().await.expect("an answer");
    (response.status(), response.json().await.expect("a refusal"))
}

async fn a_day_at_the_office(client: Client, version: Version) {
    let served = Served::start(client).await;
    assert_eq!(served.budgets(1, 100).await, StatusCode::OK);
    let reserve = served.post("/v1/reserve", &ask("a", &["demo/team"], 60, 10));
    let response = reserve.try_clone().expect("a copy").send().await.expect("an answer");
    assert_eq!(response.version(), version);
    assert_eq!(response.json::<Reserved>().await.expect("JSON"), granted(60));
    assert_eq!(answer::<Reserved>(reserve).await, granted(60), "the same again");
    let balances: Vec<Balance> = answer(served.get("/v1/balances")).await;
    assert_eq!((balances[0].settled.tokens.0, balances[0].held.tokens.0), (0, 60));
    assert_eq!(answer::<Done>(served.post("/v1/settle", &settle("a", 25, 0))).await, Done::Applied);
    assert_eq!(answer::<Done>(served.post("/v1/settle", &settle("a", 25, 0))).await, Done::AlreadyDone);
    let page: UsagePage = answer(served.get("/v1/usage?since_ms=0")).await;
    assert_eq!((page.rows.len(), page.rows[0].tokens, page.next), (1, 25, None));
    let later: UsagePage = answer(served.get(&format!("/v1/usage?since_ms=0&after={}", page.rows[0].seq))).await;
    assert_eq!(later.rows.len(), 0);
    let future: UsagePage = answer(served.get("/v1/usage?since_ms=9000000000000")).await;
    assert_eq!(future.rows.len(), 0);
    assert_eq!(answer::<Done>(served.post("/v1/spend", &Spend { epoch: 1, entries: vec![] })).await, Done::Applied);
    let spend: SpendTotal = answer(served.get("/v1/spend?since_ms=0&namespace=demo")).await;
    assert_eq!((spend.nano_usd.0, spend.models.len()), (0, 0));
    let metered: Vec<Metered> = answer(served.get("/v1/spend/metered?since_ms=0")).await;
    assert_eq!(metered, []);
}

#[tokio::test]
async fn the_api_speaks_http_1_1() {
    a_day_at_the_office(Client::new(), Version::HTTP_11).await;
}

#[tokio::test]
async fn the_api_speaks_http_2_without_tls() {
    let client = Client::builder().http2_prior_knowledge().build().expect("a client");
    a_day_at_the_office(client, Version::HTTP_2).await;
}

#[tokio::test]
async fn without_the_token_there_is_nothing() {
    let served = Served::start(Client::new()).await;
    for path in ["/v1/balances", "/v1/usage", "/v1/spend", "/v1/spend/metered", "/v1/reserve"] {
        let bare = served.client.get(format!("{}{path}", served.api));
        for request in [bare.try_clone().expect("a copy"), bare.bearer_auth("a guess")] {
            let (status, refusal) = refused(request).await;
            assert_eq!((status, refusal.code), (StatusCode::UNAUTHORIZED, RefusalCode::Unauthorized), "{path}");
        }
    }
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let served = Served::start(Client::new()).await;
    assert_eq!(served.budgets(5, 100).await, StatusCode::OK);
    assert_eq!(served.budgets(4, 100).await, StatusCode::CONFLICT);
    let stale = Budgets { epoch: 4, budgets: vec![] };
    let (_, refusal) = refused(served.put("/v1/budgets", &stale)).await;
    assert_eq!(refusal.code, RefusalCode::StaleEpoch);

    let post = |path: &str| served.client.post(format!("{}{path}", served.api)).bearer_auth(TOKEN);
    for body in ["", "{", "[]", "{\"attempt\":7}", "{\"attempt\":\"a\"}"] {
        let (status, refusal) = refused(post("/v1/reserve").body(body)).await;
        assert_eq!((status, refusal.code), (StatusCode::BAD_REQUEST, RefusalCode::Invalid), "{body}");
    }
    let (status, refusal) = refused(served.post("/v1/reserve", &ask("a", &["demo/team"], 1, 2))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refusal.message.contains("atLeast"), "{}", refusal.message);

    let (status, refusal) = refused(post("/v1/reserve").body(vec![b' '; 70_000])).await;
    assert_eq!((status, refusal.code), (StatusCode::PAYLOAD_TOO_LARGE, RefusalCode::Invalid));

    answer::<Reserved>(served.post("/v1/reserve", &ask("a", &["demo/team"], 60, 1))).await;
    let (status, refusal) = refused(served.post("/v1/reserve", &ask("a", &["demo/team"], 61, 1))).await;
    assert_eq!((status, refusal.code), (StatusCode::CONFLICT, RefusalCode::Conflict));

    let (status, _) = refused(served.get("/v1/usage?since_ms=yesterday")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(served.get("/v1/nothing").send().await.expect("an answer").status(), StatusCode::NOT_FOUND);
    assert_eq!(served.get("/v1/reserve").send().await.expect("an answer").status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn probes_answer_and_a_stop_ends_the_service() {
    let mut served = Served::start(Client::new()).await;
    for path in ["/livez", "/readyz", "/metrics"] {
        let response = served.client.get(format!("{}{path}", served.admin)).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(served.budgets(1, 100).await, StatusCode::OK);
    served.stop.take().expect("once").send(()).expect("it listens");
    served.serving.await.expect("a task").expect("a clean end");
    assert!(served.client.get(format!("{}/v1/balances", served.api)).send().await.is_err(), "it still listens");
}
