use super::*;

fn pool(sequences: usize, cells: usize, sharing: Sharing) -> Pool {
    Pool::new(KvCapacity { sequences, cells, sharing })
}

fn text(first: Token, length: Token) -> Vec<Token> {
    (first..first + length).collect()
}

#[test]
fn a_shared_cell_counts_once_and_a_copied_one_twice() {
    for (sharing, used) in [(Sharing::Cells, 33), (Sharing::Copies, 65)] {
        let mut pool = pool(2, 100, sharing);
        let (first, cached) = pool.acquire(&text(0, 33)).unwrap();
        assert_eq!(cached, 0);
        assert!(pool.grow(first, &text(0, 32)));
        assert_eq!(pool.cached(&text(0, 33)), 0, "it is not computed yet");
        pool.settle();
        let (second, cached) = pool.acquire(&text(0, 33)).unwrap();
        assert_eq!((second, cached), (1, 32));
        assert!(pool.grow(second, &[32]));
        assert_eq!((pool.used(), pool.busy()), (used, used));
        assert_eq!(pool.take_ops(), [KvOp::Copy { from: 0, to: 1, tokens: 32 }]);
        pool.forget(first);
        pool.release(second);
        assert_eq!((pool.used(), pool.busy()), (33, 0));
    }
}

#[test]
fn the_last_token_is_always_computed() {
    let mut pool = pool(2, 100, Sharing::Cells);
    let (first, _) = pool.acquire(&text(0, 32)).unwrap();
    pool.grow(first, &text(0, 32));
    pool.settle();
    assert_eq!(pool.acquire(&text(0, 32)), Some((1, 31)));
}

#[test]
fn an_idle_sequence_that_goes_on_is_taken_over_and_another_is_left_alone() {
    let mut pool = pool(3, 100, Sharing::Cells);
    let (first, _) = pool.acquire(&text(0, 20)).unwrap();
    pool.grow(first, &text(0, 20));
    pool.release(first);
    assert_eq!(pool.acquire(&text(0, 40)), Some((0, 20)));
    assert_eq!(pool.take_ops(), []);
    pool.grow(0, &text(20, 20));
    pool.release(0);
    let fork = [text(0, 30), vec![900; 5]].concat();
    assert_eq!(pool.acquire(&fork), Some((1, 30)), "the longer one stays");
    assert_eq!(pool.cached(&text(0, 41)), 40);
}

#[test]
fn with_no_other_to_be_had_the_found_one_is_cut() {
    let mut pool = pool(1, 100, Sharing::Cells);
    pool.acquire(&text(0, 40)).unwrap();
    pool.grow(0, &text(0, 40));
    pool.release(0);
    assert_eq!(pool.acquire(&[text(0, 30), vec![900; 5]].concat()), Some((0, 30)));
    assert_eq!(pool.take_ops(), [KvOp::Keep { sequence: 0, tokens: 30 }]);
    assert_eq!(pool.acquire(&text(0, 40)), None, "every sequence is busy");
}

#[test]
fn idle_sequences_give_way_and_busy_ones_do_not() {
    let mut pool = pool(3, 64, Sharing::Cells);
    for at in [0, 100] {
        let (sequence, _) = pool.acquire(&text(at, 32)).unwrap();
        assert!(pool.grow(sequence, &text(at, 32)));
        pool.release(sequence);
    }
    let (busy, _) = pool.acquire(&text(200, 40)).unwrap();
    assert_eq!(pool.room(), 64);
    assert!(pool.grow(busy, &text(200, 40)));
    assert_eq!((pool.used(), pool.busy(), pool.room()), (40, 40, 24));
    assert!(!pool.grow(busy, &text(300, 25)), "there are only 24");
    assert_eq!(pool.tokens(busy).len(), 40);
}

#[test]
fn too_short_to_be_worth_keeping() {
    let mut pool = pool(1, 64, Sharing::Cells);
    pool.acquire(&text(0, 5)).unwrap();
    pool.grow(0, &text(0, 5));
    pool.release(0);
    assert_eq!(pool.used(), 0);
    assert_eq!(pool.take_ops(), [KvOp::Keep { sequence: 0, tokens: 0 }]);
}
