//! `kill -9` of the real process at random moments: nothing that was acknowledged is lost, nothing counts twice.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod common;

use common::{ask, budget, settle, window};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{
    Attempt, Balance, Budgets, CalendarUnit, Done, Period, Reserve, Reserved, UsagePage, UsageRow,
};
use reqwest::{Client, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TOKEN: &str = "token";
const TEAM: &str = "demo/team";
const KEY: &str = "demo/key";
/// Reached in the middle of the test, so that refusals happen as well.
const TEAM_LIMIT: u64 = 10_000;
const STREAMS: usize = 12;
const KILLS: u64 = 5;

struct Process {
    child: Child,
    api: String,
}

impl Process {
    fn start(dir: &Path) -> Self {
        let token = dir.join("token");
        std::fs::write(&token, TOKEN).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_quartermaster-ledger"))
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.join("data"))
            .arg("--internal-token-file")
            .arg(token)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the ledger starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its log")).lines().map_while(Result::ok);
        let api = lines
            .find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
                line.get("api").and_then(|api| api.as_str()).map(|api| format!("http://{api}"))
            })
            .expect("it says where it listens");
        // Its log is read on, so that it never waits for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, api }
    }

    fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client knows of one attempt. An end that was sent but never acknowledged may have happened or not.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    ReserveSent(Reserve),
    Held(u64),
    SettleSent { held: u64, used: u64 },
    Settled(u64),
    ReleaseSent(u64),
    Released,
    Refused,
}

type Fates = Arc<Mutex<BTreeMap<String, Fate>>>;

#[derive(Clone)]
struct Api {
    client: Client,
    base: String,
}

impl Api {
    fn of(process: &Process) -> Self {
        let client = Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
        Self { client, base: process.api.clone() }
    }

    /// None where the process is gone.
    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Option<T> {
        let request = self.client.post(format!("{}{path}", self.base)).bearer_auth(TOKEN).json(body);
        let response = request.send().await.ok()?;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.ok()
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(TOKEN);
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    async fn budgets(&self) {
        let year = || Period::Calendar { unit: CalendarUnit::Year, time_zone: "UTC".to_owned() };
        let limit = |tokens| vec![window("year", year(), Some(tokens), None)];
        let budgets = vec![budget(KEY, limit(1_000_000_000)), budget(TEAM, limit(TEAM_LIMIT))];
        let request = self.client.put(format!("{}/v1/budgets", self.base)).bearer_auth(TOKEN);
        let response = request.json(&Budgets { epoch: 1, budgets }).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
    }

    async fn rows(&self) -> Vec<UsageRow> {
        let (mut rows, mut after) = (Vec::new(), 0);
        loop {
            let page: UsagePage = self.get(&format!("/v1/usage?after={after}")).await;
            rows.extend(page.rows);
            match page.next {
                Some(next) => after = next,
                None => return rows,
            }
        }
    }

    /// One attempt from reservation to its end, as far as the process lives.
    async fn attempt(&self, id: &str, random: u64, fates: &Fates) -> Option<()> {
        let note = |fate: Fate| fates.lock().expect("no panic").insert(id.to_owned(), fate);
        let reserve = Reserve { lease: Millis(600_000), ..ask(id, &[KEY, TEAM], 20 + random % 80, 1) };
        note(Fate::ReserveSent(reserve.clone()));
        let held = match self.post("/v1/reserve", &reserve).await? {
            Reserved::Granted { held } => held.tokens.0,
            Reserved::Exhausted(_) => {
                note(Fate::Refused);
                return Some(());
            }
        };
        note(Fate::Held(held));
        match random % 10 {
            0 => {}
            1 | 2 => {
                note(Fate::ReleaseSent(held));
                let release = Attempt { attempt: id.to_owned(), lease: None };
                self.post::<Done>("/v1/release", &release).await?;
                note(Fate::Released);
            }
            _ => {
                let used = random % (held + 1);
                note(Fate::SettleSent { held, used });
                self.post::<Done>("/v1/settle", &settle(id, used, 0)).await?;
                note(Fate::Settled(used));
            }
        }
        Some(())
    }
}

/// Small, seeded by the case: where a test fails, it fails again.
fn random(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 16
}

/// What the rows and balances must be, given what the clients know.
async fn check(api: &Api, fates: &BTreeMap<String, Fate>) {
    let rows = api.rows().await;
    let mut settled: BTreeMap<&str, i64> = BTreeMap::new();
    for row in &rows {
        assert_eq!(row.revision, 0, "no lease passes in this test: {row:?}");
        assert_eq!(settled.insert(&row.attempt, row.tokens), None, "{} was counted twice", row.attempt);
    }
    let (mut least_held, mut most_held) = (0, 0);
    for (id, fate) in fates {
        let found = settled.get(id.as_str()).copied().map(|tokens| u64::try_from(tokens).expect("no correction"));
        match fate {
            Fate::Settled(used) => assert_eq!(found, Some(*used), "{id} was acknowledged"),
            Fate::SettleSent { used, held } => match found {
                Some(tokens) => assert_eq!(tokens, *used, "{id}"),
                None => (least_held, most_held) = (least_held + held, most_held + held),
            },
            other => {
                assert_eq!(found, None, "{id} was never settled");
                match other {
                    Fate::Held(held) => (least_held, most_held) = (least_held + held, most_held + held),
                    Fate::ReleaseSent(held) => most_held += held,
                    Fate::ReserveSent(reserve) => most_held += reserve.want.tokens.0,
                    _ => {}
                }
            }
        }
    }
    let sum: i64 = rows.iter().map(|row| row.tokens).sum();
    for balance in api.get::<Vec<Balance>>("/v1/balances").await {
        let (settled, held) = (balance.settled.tokens.0, balance.held.tokens.0);
        assert_eq!(i64::try_from(settled).expect("small"), sum, "rows and sums of {}", balance.budget);
        assert!((least_held..=most_held).contains(&held), "{held} held, not {least_held} to {most_held}");
        let limit = balance.limit_tokens.expect("a limit").0;
        assert!(settled + held <= limit, "{} is passed: {settled} + {held} > {limit}", balance.budget);
    }
}

/// A gateway that comes back says again what it does not know the answer to.
async fn replay(api: &Api, fates: &Fates) {
    let unsure: Vec<_> = fates.lock().expect("no panic").clone().into_iter().collect();
    for (id, fate) in unsure {
        let release = Attempt { attempt: id.clone(), lease: None };
        let now = match fate {
            Fate::SettleSent { used, .. } => {
                api.post::<Done>("/v1/settle", &settle(&id, used, 0)).await.expect("settled");
                Fate::Settled(used)
            }
            Fate::ReleaseSent(_) => {
                api.post::<Done>("/v1/release", &release).await.expect("released");
                Fate::Released
            }
            Fate::ReserveSent(reserve) => match api.post("/v1/reserve", &reserve).await.expect("an answer") {
                Reserved::Granted { held } => Fate::Held(held.tokens.0),
                Reserved::Exhausted(_) => Fate::Refused,
            },
            known => known,
        };
        fates.lock().expect("no panic").insert(id, now);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_and_counts_nothing_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let fates = Fates::default();
    for round in 0..KILLS {
        let process = Process::start(dir.path());
        let api = Api::of(&process);
        let known = fates.lock().expect("no panic").clone();
        check(&api, &known).await;
        replay(&api, &fates).await;
        api.budgets().await;
        let streams: Vec<_> = (0..STREAMS)
            .map(|stream| {
                let (api, fates) = (api.clone(), Arc::clone(&fates));
                tokio::spawn(async move {
                    let mut count = 0;
                    loop {
                        let id = format!("{round}-{stream}-{count}");
                        let seed = round * 1_000_003 + u64::try_from(stream * 7919 + count).expect("small");
                        if api.attempt(&id, random(seed), &fates).await.is_none() {
                            return;
                        }
                        count += 1;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(60 + random(round) % 300)).await;
        process.kill();
        for stream in streams {
            stream.await.expect("no assertion failed");
        }
    }
    let process = Process::start(dir.path());
    let api = Api::of(&process);
    let known = fates.lock().expect("no panic").clone();
    check(&api, &known).await;
    replay(&api, &fates).await;
    let fates = fates.lock().expect("no panic").clone();
    check(&api, &fates).await;
    let count = |wanted: fn(&Fate) -> bool| fates.values().filter(|fate| wanted(fate)).count();
    let held: u64 = fates.values().map(|fate| if let Fate::Held(held) = fate { *held } else { 0 }).sum();
    let balances: Vec<Balance> = api.get("/v1/balances").await;
    assert!(balances.iter().all(|balance| balance.held.tokens.0 == held), "{held} are held: {balances:?}");
    let settled = count(|fate| matches!(fate, Fate::Settled(_)));
    println!("{} attempts, {settled} settled, {} refused", fates.len(), count(|fate| *fate == Fate::Refused));
    assert!(settled > 20, "only {settled} attempts settled: the test has tested nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_the_process_cleanly() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut process = Process::start(dir.path());
    let api = Api::of(&process);
    api.budgets().await;
    let granted: Reserved = api.post("/v1/reserve", &ask("a", &[KEY], 5, 1)).await.expect("an answer");
    assert!(matches!(granted, Reserved::Granted { .. }));
    let pid = Pid::from_raw(i32::try_from(process.child.id()).expect("a pid"));
    kill(pid, Signal::SIGTERM).expect("SIGTERM");
    let status = tokio::task::spawn_blocking(move || process.child.wait().expect("it ends")).await.expect("a task");
    assert!(status.success(), "{status}");
    let log = dir.path().join("data/ledger.sqlite-wal");
    assert!(!log.exists() || log.metadata().expect("a file").len() == 0, "the log was not folded");
}
