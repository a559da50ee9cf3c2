use super::*;
use crate::profile::Profile;
use std::time::Duration;

/// Knows that the next token is one higher, and checks that positions follow on.
#[derive(Default)]
struct Counting {
    held: Vec<Vec<Token>>,
    steps: usize,
    rows: usize,
}

impl Engine for Counting {
    fn step(&mut self, rows: &[Row], read: &mut dyn FnMut(usize, &[f32])) -> Result<Duration, EngineError> {
        self.steps += 1;
        self.rows += rows.len();
        for (index, row) in rows.iter().enumerate() {
            let held = &mut self.held[row.sequence];
            assert_eq!(usize::try_from(row.position).unwrap(), held.len());
            held.push(row.token);
            if row.logits {
                let mut logits = [0_f32; 512];
                logits[usize::try_from(row.token).unwrap() + 1] = 1.0;
                read(index, &logits);
            }
        }
        Ok(Duration::ZERO)
    }

    fn apply(&mut self, op: KvOp) -> Result<(), EngineError> {
        let KvOp::Keep { sequence, tokens } = op else { panic!("{op:?}") };
        self.held[sequence].truncate(tokens);
        Ok(())
    }
}

fn drafter(sequences: usize) -> Drafter<Counting> {
    let profile = Profile {
        step_seconds: 1.0,
        sequence_seconds: 0.0,
        context_token_seconds: 0.0,
        prompt_token_seconds: 0.0,
        flash_attention: true,
        shared_cells: false,
    };
    let engine = Counting { held: vec![Vec::new(); sequences], ..Counting::default() };
    Drafter::new(engine, sequences, Policy::new(profile, profile, 4, None))
}

fn want(id: RequestId, tokens: &[Token], most: usize) -> Wanted<'_> {
    Wanted { id, tokens, most }
}

fn tokens(guessed: &[Guessed]) -> Vec<(RequestId, Vec<Token>)> {
    guessed.iter().map(|guessed| (guessed.id, guessed.tokens.clone())).collect()
}

#[test]
fn texts_are_guessed_side_by_side_and_each_as_far_as_it_may() {
    let mut drafter = drafter(3);
    let guessed = drafter.guess(&[want(1, &[10, 11], 9), want(2, &[50], 1), want(3, &[7], 0)], 3).unwrap();
    assert_eq!(tokens(&guessed), [(1, vec![12, 13, 14]), (2, vec![51])]);
    assert_eq!((drafter.engine.steps, drafter.engine.rows), (3, 2 + 1 + 1 + 1 + 1), "no row for what nobody wants");
}

#[test]
fn what_held_is_not_computed_again_and_what_did_not_is_forgotten() {
    let mut drafter = drafter(1);
    drafter.guess(&[want(1, &[10, 11], 9)], 3).unwrap();
    let rows = drafter.engine.rows;
    // Of 12, 13, 14 the first held, and 99 was said instead of the second.
    let guessed = drafter.guess(&[want(1, &[10, 11, 12, 99], 9)], 2).unwrap();
    assert_eq!(tokens(&guessed), [(1, vec![100, 101])]);
    assert_eq!(drafter.engine.rows - rows, 2, "99, and the first guess");
    assert_eq!(drafter.engine.held[0], [10, 11, 12, 99, 100]);
}

#[test]
fn a_long_prompt_is_caught_up_with_in_turns() {
    let mut drafter = drafter(2);
    let long: Vec<Token> = (0..Token::try_from(CATCH_UP).unwrap() + 10).collect();
    assert_eq!(drafter.guess(&[want(1, &long, 9)], 2).unwrap(), []);
    assert_eq!(drafter.engine.rows, CATCH_UP);
    let guessed = drafter.guess(&[want(1, &long, 9), want(2, &[5], 9)], 1).unwrap();
    assert_eq!(tokens(&guessed), [(1, vec![Token::try_from(long.len()).unwrap()]), (2, vec![6])]);
}

#[test]
fn a_sequence_goes_to_who_needs_it_and_keeps_what_it_can() {
    let mut drafter = drafter(1);
    drafter.guess(&[want(1, &[10, 11, 12], 9)], 1).unwrap();
    assert_eq!(drafter.guess(&[want(1, &[10, 11, 12, 13], 9), want(2, &[5], 9)], 1).unwrap().len(), 1, "one for each");
    let rows = drafter.engine.rows;
    let guessed = drafter.guess(&[want(2, &[10, 11, 40], 9)], 1).unwrap();
    assert_eq!(
        (tokens(&guessed), drafter.engine.rows - rows),
        (vec![(2, vec![41])], 1),
        "it begins like the one before"
    );
}
