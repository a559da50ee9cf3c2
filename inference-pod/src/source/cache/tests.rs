use super::*;
use crate::source::digest::Hasher;
use std::io::Write;
use std::time::Duration;

fn cache(limit: Option<u64>) -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), limit).unwrap();
    (folder, cache)
}

fn put(cache: &Cache, text: &str) -> Entry {
    let mut partial = cache.try_partial(&format!("part-{text}")).unwrap().unwrap();
    partial.file.write_all(text.as_bytes()).unwrap();
    cache.keep(partial, Digest::of(text)).unwrap()
}

/// As if it had been used so long ago.
fn age(path: &Path, seconds: u64) {
    let file = File::open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

#[test]
fn what_is_kept_is_found_by_its_content() {
    let (_folder, cache) = cache(None);
    assert!(cache.get(Digest::of("a")).unwrap().is_none());
    let entry = put(&cache, "a");
    assert_eq!(fs::read_to_string(&entry.path).unwrap(), "a");
    assert_eq!(entry.bytes, 1);
    assert!(entry.path.metadata().unwrap().permissions().readonly());
    assert!(fs::read_dir(cache.root.join("partial")).unwrap().next().is_none());
    let again = cache.get(Digest::of("a")).unwrap().unwrap();
    assert_eq!(again.path, entry.path);
    let mut hasher = Hasher::default();
    assert_eq!(hasher.read(&mut File::open(&again.path).unwrap(), 10).unwrap(), 1);
    assert_eq!(hasher.finish(), Digest::of("a"));
}

#[test]
fn one_writer_at_a_time() {
    let (_folder, cache) = cache(None);
    let first = cache.try_partial("k").unwrap().unwrap();
    assert!(cache.try_partial("k").unwrap().is_none());
    first.remove();
    assert!(cache.try_partial("k").unwrap().is_some());
}

#[test]
fn what_was_used_least_recently_goes_and_what_is_in_use_stays() {
    let (_folder, cache) = cache(Some(10));
    let old = put(&cache, "old.");
    let newer = put(&cache, "new.");
    age(&old.path, 300);
    age(&newer.path, 200);
    let coming = cache.try_partial("coming").unwrap().unwrap();
    let plan = |bytes| Plan { validator: None, bytes, boot: boot() };
    // Ten bytes, eight there, four coming: the older goes, once nobody uses it.
    coming.note(&plan(4)).unwrap();
    let error = cache.make_room("x").unwrap_err();
    assert_eq!(error.kind, Kind::NoSpace);
    assert!(
        error.to_string().contains("12 bytes are wanted at once") && error.to_string().contains("limit is 10"),
        "{error}"
    );
    drop(old);
    cache.make_room("x").unwrap();
    assert!(cache.get(Digest::of("old.")).unwrap().is_none());
    drop(newer);
    // Looking at it made it the youngest; it fits, so it stays.
    assert!(cache.get(Digest::of("new.")).unwrap().is_some());
    cache.make_room("x").unwrap();
    assert!(cache.get(Digest::of("new.")).unwrap().is_some());
    // More than the limit is never promised.
    coming.note(&plan(11)).unwrap();
    assert_eq!(cache.make_room("x").unwrap_err().kind, Kind::NoSpace);
    assert!(cache.get(Digest::of("new.")).unwrap().is_some(), "deleted for what can't be had anyway");
    coming.note(&plan(1 << 60)).unwrap();
    let unlimited = Cache { limit_bytes: None, ..cache };
    assert!(unlimited.make_room("x").unwrap_err().to_string().contains("the disk has"));
}

#[test]
fn what_nobody_resumes_goes_after_a_week() {
    let (_folder, cache) = cache(None);
    let mut partial = cache.try_partial("dead").unwrap().unwrap();
    partial.file.write_all(b"half").unwrap();
    partial.note(&Plan::default()).unwrap();
    drop(partial);
    let path = cache.root.join("partial/dead");
    cache.make_room("x").unwrap();
    assert!(path.exists());
    age(&path, 8 * 24 * 3600);
    cache.make_room("x").unwrap();
    assert!(!path.exists() && !plan_of(&path).exists());
}

#[test]
fn an_entry_outlives_a_writer_of_the_same() {
    let (_folder, cache) = cache(None);
    let (first, second) = (put(&cache, "same"), put(&cache, "same"));
    assert_eq!(first.path, second.path);
    cache.discard(second);
    assert!(first.path.exists() || cache.get(Digest::of("same")).unwrap().is_none());
}

#[test]
fn a_note_is_read_back() {
    let (_folder, cache) = cache(None);
    let known = Known { sha256: Digest::of("a").to_string(), validator: Some("\"v1\"".into()) };
    assert_eq!(cache.known(Digest::of("uri")), None);
    cache.note(Digest::of("uri"), &known);
    assert_eq!(cache.known(Digest::of("uri")), Some(known));
}
