//! Reserve and settle pairs per second, in process, on a real file with fsync, at several concurrencies.
//! Goal: 1,000 pairs a second at concurrency 64: group commit, so that a slow disk costs latency and not throughput.
#![allow(clippy::expect_used, missing_docs, reason = "a bench may fail, and its macro documents nothing")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quartermaster_core::units::{Millis, NanoUsd, Tokens};
use quartermaster_core::wire::ledger::{Amount, Budget, Budgets, CalendarUnit, Period, Reserve, Settle, Usage, Window};
use quartermaster_ledger::clock::Clock;
use quartermaster_ledger::commands::Command;
use quartermaster_ledger::metrics::Metrics;
use quartermaster_ledger::sqlite::SqliteStore;
use quartermaster_ledger::writer::Writer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pairs in one sample.
const PAIRS: u64 = 512;

fn reserve(id: u64) -> Command {
    let amount = |tokens| Amount { tokens: Tokens(tokens), nano_usd: NanoUsd(1) };
    Command::Reserve(Reserve {
        attempt: id.to_string(),
        budgets: vec!["demo/key".to_owned(), "demo/team".to_owned()],
        want: amount(100),
        at_least: amount(10),
        lease: Millis(60_000),
    })
}

fn settle(id: u64) -> Command {
    let actual = Amount { tokens: Tokens(50), nano_usd: NanoUsd(1) };
    Command::Settle(Settle { attempt: id.to_string(), actual, usage: Usage::default() })
}

/// Two budgets with a calendar and a rolling window each.
fn budgets() -> Command {
    let window =
        |name: &str, period| Window { name: name.to_owned(), period, tokens: Some(Tokens(1 << 60)), nano_usd: None };
    let windows = vec![
        window("day", Period::Calendar { unit: CalendarUnit::Day, time_zone: "Europe/Berlin".to_owned() }),
        window("hour", Period::Rolling { length: Millis::HOUR }),
    ];
    let budget = |id: &str| Budget { id: id.to_owned(), windows: windows.clone() };
    Command::Budgets(Budgets { epoch: 1, budgets: vec![budget("demo/key"), budget("demo/team")] })
}

fn pairs(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(dir.path()).expect("a store");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (writer, _thread) = Writer::start(store, Clock::system(), Arc::new(Metrics::default())).expect("a writer");
    runtime.block_on(writer.submit(budgets())).expect("budgets");
    let next = Arc::new(AtomicU64::new(0));
    let mut group = criterion.benchmark_group("reserve_settle");
    group.throughput(Throughput::Elements(PAIRS)).sample_size(10);
    for streams in [1u64, 16, 128] {
        group.bench_function(BenchmarkId::from_parameter(streams), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..streams)
                        .map(|_| {
                            let (writer, next) = (writer.clone(), Arc::clone(&next));
                            tokio::spawn(async move {
                                for _ in 0..PAIRS / streams {
                                    let id = next.fetch_add(1, Ordering::Relaxed);
                                    writer.submit(reserve(id)).await.expect("granted");
                                    writer.submit(settle(id)).await.expect("settled");
                                }
                            })
                        })
                        .collect();
                    for task in tasks {
                        task.await.expect("a task");
                    }
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pairs);
criterion_main!(benches);
