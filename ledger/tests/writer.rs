//! Group commit: one failing command is nobody else's problem, and a full queue says so.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod common;

use common::{LEASE, ask, daily, granted, settle};
use quartermaster_core::units::Millis;
use quartermaster_core::wire::ledger::{Budgets, Done};
use quartermaster_ledger::clock::Clock;
use quartermaster_ledger::commands::{Command, CommandError, Reply};
use quartermaster_ledger::limits::QUEUE;
use quartermaster_ledger::metrics::Metrics;
use quartermaster_ledger::reader::Reader;
use quartermaster_ledger::sqlite::{self, SqliteStore};
use quartermaster_ledger::store::Store as _;
use quartermaster_ledger::writer::{WriteError, Writer};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use tempfile::TempDir;

struct Running {
    dir: TempDir,
    writer: Writer,
    thread: JoinHandle<SqliteStore>,
    metrics: Arc<Metrics>,
    clock: Clock,
    hand: Arc<AtomicI64>,
}

async fn start(limit: u64) -> Running {
    let dir = tempfile::tempdir().expect("a directory");
    let hand = Arc::new(AtomicI64::new(common::NOW.0));
    let clock = Clock::from_fn({
        let hand = Arc::clone(&hand);
        move || Millis(hand.load(Ordering::Relaxed))
    });
    let (metrics, store) = (Arc::new(Metrics::default()), SqliteStore::open(dir.path()).expect("a store"));
    let (writer, thread) = Writer::start(store, clock.clone(), Arc::clone(&metrics)).expect("a writer");
    let budgets = Budgets { epoch: 1, budgets: vec![daily("demo/team", limit)] };
    writer.submit(Command::Budgets(budgets)).await.expect("budgets");
    Running { dir, writer, thread, metrics, clock, hand }
}

fn reserve(id: usize) -> Command {
    Command::Reserve(ask(&id.to_string(), &["demo/team"], 1, 1))
}

/// While another process holds the database's lock, the writer waits and its queue fills.
fn hold_the_lock(dir: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(sqlite::file(dir)).expect("a connection");
    connection.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    connection
}

#[tokio::test]
async fn a_full_queue_refuses_and_what_waited_is_written_together() {
    let running = start(1_000_000).await;
    let lock = hold_the_lock(running.dir.path());
    let calls: Vec<_> = (0..QUEUE + 2000)
        .map(|id| {
            let writer = running.writer.clone();
            tokio::spawn(async move { writer.submit(reserve(id)).await })
        })
        .collect();
    while running.metrics.queue_depth.get() < i64::try_from(QUEUE).expect("small") {
        tokio::task::yield_now().await;
    }
    // The others are refused without waiting for the lock.
    tokio::task::yield_now().await;
    lock.execute_batch("ROLLBACK").expect("unlocked");
    let (mut done, mut busy) = (0, 0);
    for call in calls {
        match call.await.expect("a task") {
            Ok(reply) => {
                assert_eq!(reply, Reply::Reserved(granted(1)));
                done += 1;
            }
            Err(WriteError::Busy) => busy += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(busy > 0 && done >= QUEUE, "{busy} were refused, {done} done");
    drop(running.writer);
    let mut store = running.thread.join().expect("the writer ends");
    assert_eq!(
        store.open_attempts().expect("a count"),
        u64::try_from(done).expect("small"),
        "what was answered is there"
    );
}

#[tokio::test]
async fn a_failing_command_takes_back_itself_and_nothing_else() {
    let running = start(100).await;
    let submit = |command| {
        let writer = running.writer.clone();
        tokio::spawn(async move { writer.submit(command).await })
    };
    running.writer.submit(reserve(1)).await.expect("granted");
    let lock = hold_the_lock(running.dir.path());
    let calls = [
        submit(reserve(2)),
        submit(Command::Reserve(ask("1", &["demo/team"], 50, 1))),
        submit(Command::Settle(settle("1", 1, 0))),
        submit(Command::Budgets(Budgets { epoch: 2, budgets: vec![daily("new", 1), daily("new", 1)] })),
        submit(reserve(3)),
    ];
    while running.metrics.queue_depth.get() < 4 {
        tokio::task::yield_now().await;
    }
    lock.execute_batch("ROLLBACK").expect("unlocked");
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.expect("a task"));
    }
    assert!(matches!(answers[0], Ok(Reply::Reserved(_))) && matches!(answers[4], Ok(Reply::Reserved(_))));
    assert!(matches!(answers[1], Err(WriteError::Command(CommandError::Conflict(_)))), "{:?}", answers[1]);
    assert!(matches!(answers[2], Ok(Reply::Done(Done::Applied))), "{:?}", answers[2]);
    assert!(matches!(answers[3], Err(WriteError::Command(CommandError::Invalid(_)))), "{:?}", answers[3]);
    let reader = Reader::open(|| SqliteStore::open_reader(running.dir.path())).expect("a reader");
    let balances = reader.balances(running.clock.now()).await.expect("balances");
    assert_eq!((balances.len(), balances[0].settled.tokens.0, balances[0].held.tokens.0), (1, 1, 2));
}

#[tokio::test]
async fn the_writer_lapses_holds_by_itself_and_counts_them() {
    let running = start(100).await;
    running.writer.submit(Command::Reserve(ask("a", &["demo/team"], 40, 1))).await.expect("granted");
    running.writer.submit(Command::Reserve(ask("b", &["demo/team"], 90, 1))).await.expect("granted");
    running.writer.submit(Command::Reserve(ask("c", &["demo/team"], 90, 1))).await.expect("refused");
    running.hand.fetch_add(LEASE.0, Ordering::Relaxed);
    while running.metrics.expired.get() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let reader = Reader::open(|| SqliteStore::open_reader(running.dir.path())).expect("a reader");
    let balance = reader.balances(running.clock.now()).await.expect("balances").remove(0);
    assert_eq!((balance.settled.tokens.0, balance.held.tokens.0), (100, 0));
    let text = running.metrics.render(&reader, running.clock.now()).await.expect("metrics");
    for line in [
        "quartermaster_ledger_reservations_total{outcome=\"granted\"} 1",
        "quartermaster_ledger_reservations_total{outcome=\"partial\"} 1",
        "quartermaster_ledger_reservations_total{outcome=\"exhausted\"} 1",
        "quartermaster_ledger_holds_expired_total 2",
        "quartermaster_ledger_holds_open 0",
        "quartermaster_ledger_queue_depth 0",
        "quartermaster_ledger_settled_tokens{budget=\"demo/team\",window=\"day\"} 100",
        "quartermaster_ledger_commit_batch_count 4",
        "quartermaster_ledger_commit_seconds_count 4",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
