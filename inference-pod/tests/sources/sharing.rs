//! Several processes on one cache: one downloads, a killed one is succeeded, the least used goes.

use crate::content::{Content, noise};
use crate::https::serve;
use crate::run::{Ended, Node, text, wait_until};
use std::time::Duration;

#[test]
fn two_at_once_download_once() {
    let bytes = noise(20, 600_000);
    let content = Content::new(bytes.clone());
    content.set(|manner| manner.pause = Duration::from_millis(30));
    let (node, url) = serve(Node::new(), &content);
    let children: Vec<_> = (0..3).map(|_| node.spawn(&url, &["--progress-seconds", "1"])).collect();
    let ended: Vec<_> = children.into_iter().map(Ended::of).collect();
    let mut fetched = 0;
    for one in &ended {
        assert_eq!(one.code, Some(0), "{}", one.log);
        assert_eq!(one.answer["sha256"], content.hash());
        fetched += one.answer["fetchedBytes"].as_u64().unwrap();
    }
    assert_eq!((fetched, content.sent()), (600_000, 600_000));
    assert_eq!(content.starts(), [0]);
}

#[test]
fn after_kill_9_only_the_rest_is_fetched() {
    for with_hash in [true, false] {
        let bytes = noise(21, 800_000);
        let content = Content::new(bytes.clone());
        content.set(|manner| manner.pause = Duration::from_millis(20));
        let (node, url) = serve(Node::new(), &content);
        let hash = content.hash();
        let flags: &[&str] = if with_hash { &["--sha256", &hash] } else { &[] };
        let mut child = node.spawn(&url, flags);
        wait_until("half the file", || node.partial_bytes() > 300_000);
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        let there = node.partial_bytes();
        assert!(there > 300_000 && there < 800_000);
        content.set(|manner| manner.pause = Duration::ZERO);
        node.fetch(&url, flags).brought(&bytes, 800_000 - usize::try_from(there).unwrap());
        assert_eq!(content.starts(), [0, there]);
    }
}

#[test]
fn what_a_killed_process_left_broken_is_fetched_anew() {
    let bytes = noise(22, 300_000);
    let content = Content::new(bytes.clone());
    let (node, url) = serve(Node::new(), &content);
    std::fs::create_dir_all(node.path("cache/partial")).unwrap();
    std::fs::write(node.path("cache/partial").join(content.hash()), noise(23, 100_000)).unwrap();
    let ended = node.fetch(&url, &["--sha256", &content.hash()]);
    ended.brought(&bytes, 500_000);
    assert_eq!(content.starts(), [100_000, 0]);
    // Of another version of the file, or of before a crash of the machine, nothing is taken.
    let (node, url) = serve(Node::new(), &content);
    node.fetch(&url, &[]).brought(&bytes, 300_000);
}

#[test]
fn a_waiting_process_goes_on_where_a_killed_one_ended() {
    let bytes = noise(24, 600_000);
    let content = Content::new(bytes.clone());
    content.set(|manner| manner.pause = Duration::from_millis(30));
    let (node, url) = serve(Node::new(), &content);
    let mut first = node.spawn(&url, &[]);
    wait_until("a beginning", || node.partial_bytes() > 100_000);
    let second = node.spawn(&url, &[]);
    // It has asked for the version, and waits.
    wait_until("the second's question", || content.seen.lock().unwrap().len() >= 3);
    first.kill().unwrap();
    first.wait().unwrap();
    let there = node.partial_bytes();
    let ended = Ended::of(second);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(ended.answer["sha256"], content.hash());
    assert!(content.starts()[1] >= there, "{:?} {there}", content.starts());
}

#[test]
fn the_least_recently_used_goes() {
    let contents: Vec<_> = (30..33).map(|seed| Content::new(noise(seed, 100_000))).collect();
    let node = Node::new().flags(&["--cache-limit-bytes", "250000"]);
    let mut node = Some(node);
    let mut urls = Vec::new();
    let mut authorities = String::new();
    for content in &contents {
        let (next, url) = serve(node.take().unwrap(), content);
        authorities.push_str(&std::fs::read_to_string(next.path("ca.pem")).unwrap());
        urls.push(url);
        node = Some(next);
    }
    let node = node.unwrap();
    std::fs::write(node.path("ca.pem"), authorities).unwrap();
    let pause = || std::thread::sleep(Duration::from_millis(20));
    for at in [0, 1, 0] {
        assert_eq!(node.fetch(&urls[at], &[]).code, Some(0));
        pause();
    }
    let out = node.path("out.gguf");
    let ended = node.fetch(&urls[2], &["--out", &text(&out)]);
    assert_eq!(ended.brought(&contents[2].manner.lock().unwrap().bytes, 100_000), out);
    let mut left = [contents[0].hash(), contents[2].hash()];
    left.sort();
    assert_eq!(node.cached("entries"), left);
    // A file that can't ever fit evicts nothing.
    let large = Content::new(noise(34, 300_000));
    let (node, url) = serve(node, &large);
    let said = node.fetch(&url, &[]).refused("DiskFull");
    assert!(said.contains("limit is 250000") && said.contains(&url), "{said}");
    assert_eq!(node.cached("entries"), left);
    assert!(node.cached("partial").is_empty());
}
