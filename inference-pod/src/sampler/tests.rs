use super::*;
use proptest::prelude::*;

fn sampler(temperature: f64, top_p: f64, seed: u64) -> Sampler {
    Sampler::new(Sampling::plain(temperature, top_p, seed), None, &[])
}

fn token(sampler: &mut Sampler, logits: &[f32]) -> Result<Token, DrawError> {
    sampler.draw(logits).map(|drawn| drawn.token)
}

#[test]
fn top_k_and_min_p_leave_the_rest_out() {
    let logits = [(0.5_f32).ln(), (0.3_f32).ln(), (0.2_f32).ln()];
    for sampling in
        [Sampling { top_k: 2, ..Sampling::plain(1.0, 1.0, 5) }, Sampling { min_p: 0.5, ..Sampling::plain(1.0, 1.0, 5) }]
    {
        let mut sampler = Sampler::new(sampling, None, &[]);
        let drawn: Vec<Token> = (0..1000).map(|_| token(&mut sampler, &logits).unwrap()).collect();
        assert!(drawn.contains(&0) && drawn.contains(&1) && !drawn.contains(&2));
    }
}

#[test]
fn a_bias_of_minus_a_hundred_bans_and_the_odds_told_are_the_models_own() {
    let bias = Bias(std::sync::Arc::from([(0, -100.0)]));
    let report = Report { logprob: true, top: 1, entropy: false };
    let mut sampler = Sampler::new(Sampling { bias, report, ..Sampling::plain(0.0, 1.0, 0) }, None, &[]);
    let drawn = sampler.draw(&[3.0, 1.0, 0.0]).unwrap();
    assert_eq!(drawn.token, 1);
    let odds = drawn.odds.unwrap();
    assert_eq!(odds.top[0].0, 0);
    assert!(odds.logprob < -2.0);
}

#[test]
fn zero_temperature_takes_the_first_of_the_best() {
    assert_eq!(token(&mut sampler(0.0, 1.0, 1), &[0.5, 2.0, f32::NAN, 2.0]), Ok(1));
    assert_eq!(token(&mut sampler(0.0, 1.0, 1), &[f32::NAN]), Err(DrawError::NotANumber));
}

#[test]
fn odds_follow_the_softmax() {
    let mut sampler = sampler(1.0, 1.0, 7);
    let logits = [0.0, (3.0_f32).ln(), f32::NEG_INFINITY];
    let counts = (0..40_000).fold([0_u32; 3], |mut counts, _| {
        counts[usize::try_from(token(&mut sampler, &logits).unwrap()).unwrap()] += 1;
        counts
    });
    assert!((9_500..10_500).contains(&counts[0]), "{counts:?}");
    assert_eq!(counts[2], 0);
}

#[test]
fn the_nucleus_leaves_the_tail_out() {
    let mut sampler = sampler(1.0, 0.6, 3);
    let logits = [(0.5_f32).ln(), (0.3_f32).ln(), (0.2_f32).ln()];
    assert!((0..1000).all(|_| token(&mut sampler, &logits).unwrap() < 2));
}

proptest! {
    #[test]
    fn a_seed_repeats_itself(seed: u64, logits in prop::collection::vec(-20_f32..20.0, 1..50)) {
        let draw = || { let mut s = sampler(1.3, 0.9, seed); (0..20).map(|_| token(&mut s, &logits)).collect::<Vec<_>>() };
        prop_assert_eq!(draw(), draw());
    }

    #[test]
    fn a_tiny_nucleus_is_greedy(seed: u64, logits in prop::collection::vec(-20_f32..20.0, 1..50)) {
        prop_assert_eq!(token(&mut sampler(0.8, 1e-12, seed), &logits), token(&mut sampler(0.0, 1.0, 0), &logits));
    }
}
