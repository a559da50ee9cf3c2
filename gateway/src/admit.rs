//! What a request may use: the model's limits, then what the hold affords. Pure arithmetic.

use crate::request::parse::Asked;
use crate::respond::Refusal;
use quartermaster_core::units::{Millis, Tokens};
use quartermaster_core::wire::gateway::TokenLimits;
use quartermaster_core::wire::ledger::{Amount, Exhausted, Unit};

/// What to ask of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most that the request could use.
    pub want: Tokens,
    /// The prompt and one token per choice: less is of no use.
    pub at_least: Tokens,
}

/// Checks the limits of one request; `max_tokens` above them is clamped, a prompt above them is refused.
pub fn bounds(limits: &TokenLimits, asked: &Asked, prompt: Tokens) -> Result<Bounds, Refusal> {
    let param = asked.api.prompt_field();
    if let Some(max) = limits.max_prompt.filter(|max| prompt > *max) {
        let message = format!("Your prompt has {prompt} tokens; this model takes prompts of at most {max} tokens.");
        return Err(Refusal::field(param, "prompt_too_long", message));
    }
    let room = limits.max_context.saturating_sub(prompt);
    if room == Tokens::ZERO {
        let message = format!(
            "This model's context is {} tokens, prompt and completion together. Your prompt has {prompt} tokens, \
             which leaves no room for a completion.",
            limits.max_context
        );
        return Err(Refusal::field(param, "context_length_exceeded", message));
    }
    let asked_or_default =
        asked.max_completion.or(limits.max_completion.map_or(asked.api.default_completion(), |_| None));
    let each = [asked_or_default, limits.max_completion].into_iter().flatten().fold(room, Ord::min);
    let times = |each: Tokens| Tokens(each.0.saturating_mul(asked.choices));
    Ok(Bounds { want: prompt.saturating_add(times(each)), at_least: prompt.saturating_add(times(Tokens(1))) })
}

/// `max_tokens` per choice that keeps the whole request within its hold.
pub fn afforded(held: Tokens, prompt: Tokens, choices: u64) -> Tokens {
    Tokens(held.saturating_sub(prompt).0 / choices.max(1))
}

/// 429: which budget said no, and when it turns. `needs` is the least that the request was to be granted.
pub fn exhausted(no: &Exhausted, needs: Amount, now: Millis) -> Refusal {
    let Exhausted { budget, window, limit, settled, held, .. } = no;
    if window.is_empty() {
        // The operator tells the ledger of every budget; this one is on its way.
        let message = format!("TokenBudget {budget} is not known to the ledger yet, so nothing can be charged to it.");
        return Refusal::exhausted(message, Some(Millis::MINUTE));
    }
    let (unit, needs) = match no.unit {
        Unit::Tokens => ("tokens", i128::from(needs.tokens.0)),
        Unit::NanoUsd => ("nano-USD", i128::from(needs.nano_usd.0)),
    };
    let Some(wait) = no.retry_after else {
        let message = format!(
            "This request needs {needs} {unit}, more than the whole budget of {limit} {unit} in window `{window}` of \
             TokenBudget {budget}. Waiting does not help: send a smaller request."
        );
        return Refusal::exhausted(message, None);
    };
    let message = format!(
        "TokenBudget {budget}, window `{window}`: {settled} of {limit} {unit} are used and {held} are held by requests \
         in progress, which leaves too little for this request. {}.",
        if i128::from(*settled) + needs <= i128::from(*limit) {
            "They may use less than they hold: ask again in a moment".to_owned()
        } else {
            resets_at(now, wait)
        }
    );
    Refusal::exhausted(message, Some(wait))
}

fn resets_at(now: Millis, wait: Millis) -> String {
    let at = now.saturating_add(wait);
    // Whole seconds, as in Retry-After.
    let seconds = at.0.saturating_add(999).div_euclid(1000);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "It resets much later".to_owned(), |at| format!("It resets at {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse::{Api, parse};
    use proptest::prelude::*;
    use quartermaster_core::units::NanoUsd;

    fn asked(max_tokens: Option<u64>, choices: u64) -> Asked {
        let body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": ""}], "max_tokens": max_tokens, "n": choices});
        parse(Api::Chat, body.to_string().as_bytes()).unwrap()
    }

    fn limits(max_prompt: Option<u64>, max_completion: Option<u64>, max_context: u64) -> TokenLimits {
        let max_context = Tokens(max_context);
        TokenLimits { max_prompt: max_prompt.map(Tokens), max_completion: max_completion.map(Tokens), max_context }
    }

    #[test]
    fn the_smallest_bound_counts() {
        let want = |limits, max_tokens, choices, prompt| {
            bounds(&limits, &asked(max_tokens, choices), Tokens(prompt)).map(|b| (b.want.0, b.at_least.0))
        };
        assert_eq!(want(limits(None, None, 100), None, 1, 10), Ok((100, 11)));
        assert_eq!(want(limits(None, Some(20), 100), None, 1, 10), Ok((30, 11)));
        assert_eq!(want(limits(None, Some(20), 100), Some(5), 1, 10), Ok((15, 11)));
        assert_eq!(want(limits(None, None, 100), Some(5), 3, 10), Ok((25, 13)));
        assert_eq!(want(limits(Some(10), None, 100), Some(500), 1, 10), Ok((100, 11)));
    }

    #[test]
    fn refusals_say_the_numbers() {
        let refusal = bounds(&limits(Some(9), None, 100), &asked(None, 1), Tokens(10)).unwrap_err();
        assert_eq!(refusal.message, "Your prompt has 10 tokens; this model takes prompts of at most 9 tokens.");
        let refusal = bounds(&limits(None, None, 10), &asked(None, 1), Tokens(10)).unwrap_err();
        assert_eq!(refusal.code, "context_length_exceeded");
        assert!(refusal.message.contains("context is 10 tokens") && refusal.message.contains("prompt has 10 tokens"));
    }

    fn no(window: &str, retry_after: Option<Millis>) -> Exhausted {
        let (budget, window, unit) = ("demo/team".into(), window.into(), Unit::Tokens);
        Exhausted { budget, window, unit, limit: 1000, settled: 990, held: 8, retry_after }
    }

    fn refused(no: &Exhausted) -> Refusal {
        exhausted(no, Amount { tokens: Tokens(1001), nano_usd: NanoUsd(7) }, Millis(0))
    }

    #[test]
    fn a_spent_budget_says_who_and_when() {
        let refusal = refused(&no("day", Some(Millis(1500))));
        assert_eq!(
            refusal.message,
            "TokenBudget demo/team, window `day`: 990 of 1000 tokens are used and 8 are held by requests in progress, \
             which leaves too little for this request. It resets at 1970-01-01T00:00:02Z."
        );
        assert_eq!(refusal.retry_after, Some(Millis(1500)));
    }

    #[test]
    fn what_is_only_held_is_not_said_to_reset() {
        let no = Exhausted { settled: 900, held: 90, ..no("day", Some(Millis::SECOND)) };
        let refusal = exhausted(&no, Amount { tokens: Tokens(20), nano_usd: NanoUsd(7) }, Millis(0));
        assert!(refusal.message.ends_with("They may use less than they hold: ask again in a moment."), "{refusal:?}");
    }

    #[test]
    fn a_request_above_the_whole_budget_is_not_told_to_wait() {
        let refusal = refused(&no("day", None));
        assert!(
            refusal.message.starts_with("This request needs 1001 tokens, more than the whole budget of 1000 tokens")
        );
        assert_eq!((refusal.code, refusal.retry_after), ("token_budget_exhausted", None));
        assert_eq!(refusal.response().headers().get("retry-after"), None);
    }

    #[test]
    fn a_budget_that_the_ledger_does_not_know_yet_is_worth_another_try() {
        let refusal = refused(&no("", None));
        assert!(refusal.message.contains("not known to the ledger"), "{}", refusal.message);
        assert_eq!(refusal.retry_after, Some(Millis::MINUTE));
    }

    proptest! {
        #[test]
        fn what_is_sent_never_exceeds_the_hold(
            prompt in 0u64..5000, context in 1u64..5000, max in proptest::option::of(1u64..9000),
            limit in proptest::option::of(1u64..9000), choices in 1u64..=16, cut in 0.0f64..=1.0,
        ) {
            let Ok(bounds) = bounds(&limits(None, limit, context), &asked(max, choices), Tokens(prompt)) else {
                prop_assert!(prompt >= context);
                return Ok(());
            };
            prop_assert!(bounds.at_least <= bounds.want);
            // The ledger grants anything between the two.
            #[expect(clippy::as_conversions, reason = "a test draws a point between two integers")]
            let held = bounds.at_least.0 + ((bounds.want.0 - bounds.at_least.0) as f64 * cut) as u64;
            let each = afforded(Tokens(held), Tokens(prompt), choices);
            prop_assert!(each.0 >= 1);
            prop_assert!(prompt + each.0 * choices <= held);
            prop_assert!(prompt + each.0 <= context);
        }
    }
}
