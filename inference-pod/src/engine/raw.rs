//! Two things of llama.cpp that `llama-cpp-2` doesn't wrap: room for logits, and threads that stay between steps.

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_sys_2 as sys;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ptr::NonNull;

/// How long idle threads spin before they sleep, in llama.cpp's unit (131,072 turns of a loop): some milliseconds, longer
/// than from one step to the next. Its default is fifty times that, for which everybody else on the machine would pay.
const POLL: u32 = 1;
/// Whatever a wrapper holds beside its pointer is less than any address.
const ADDRESS_MIN: usize = 4096;

/// With room for the logits of so many rows of a batch. By default llama.cpp has room for those of every row, which is 25 MB
/// for a vocabulary of 49,152 tokens and a batch of 128.
pub(super) fn with_outputs(rows: u32, mut params: LlamaContextParams) -> LlamaContextParams {
    const { assert!(size_of::<LlamaContextParams>() == size_of::<sys::llama_context_params>()) };
    // SAFETY: the wrapper holds llama.cpp's own parameters and, as the assertion sees, nothing beside them, so they lie at
    // its beginning; `params` is ours, and any number is a valid value of the field.
    #[expect(unsafe_code, reason = "llama-cpp-2 has no setter for n_outputs_max")]
    unsafe {
        (*(&raw mut params).cast::<sys::llama_context_params>()).n_outputs_max = rows;
    }
    params
}

/// Has a context compute on the process's threads, the caller's among the `count`, instead of starting new ones for every
/// step. All contexts share them, since only one computes at a time ([`super::llama::turn`]): threads of its own for each
/// would spin in the others' way. Does nothing where the wrapper is not what it was in the version that is pinned.
pub(super) fn share_threads(context: &mut LlamaContext<'_>, count: i32) {
    let Some(context) = pointer(context) else {
        return tracing::warn!("no lasting threads for the engine: every step starts new ones");
    };
    let mut pools = POOLS.lock();
    // SAFETY: the parameters are plain data that we own; `context` is the live context of the wrapper, which we borrow. The
    // pool lives as long as the process, so longer than the context.
    #[expect(unsafe_code, reason = "llama-cpp-2 doesn't wrap thread pools")]
    unsafe {
        let pool = pools.entry(count).or_insert_with(|| {
            let mut params = sys::ggml_threadpool_params_default(count);
            params.poll = POLL;
            Pool(sys::ggml_threadpool_new(&raw mut params))
        });
        sys::llama_attach_threadpool(context.as_ptr(), pool.0, pool.0);
    }
}

/// By the number of their threads; a process asks for one number.
static POOLS: Mutex<BTreeMap<i32, Pool>> = Mutex::new(BTreeMap::new());

struct Pool(sys::ggml_threadpool_t);

// SAFETY: a pool is used by the one context that has the turn; here it is only handed on.
#[expect(unsafe_code, reason = "a pool serves engines on several threads")]
unsafe impl Send for Pool {}

/// The context in the wrapper, which has the pointer, and a list of samplers that we never give it: capacity and length are
/// 0, its pointer is its alignment.
fn pointer(context: &mut LlamaContext<'_>) -> Option<NonNull<sys::llama_context>> {
    const WORDS: usize = 4;
    const { assert!(size_of::<LlamaContext<'_>>() == WORDS * size_of::<*mut sys::llama_context>()) };
    // SAFETY: the wrapper is so many words, as the assertion sees, all of them initialised: a pointer, and a `Vec`.
    #[expect(unsafe_code, reason = "llama-cpp-2 doesn't give its pointer away")]
    let words: [*mut sys::llama_context; WORDS] = unsafe { std::ptr::read((&raw const *context).cast()) };
    let mut addresses = words.into_iter().filter(|word| word.addr() >= ADDRESS_MIN);
    let found = addresses.next().and_then(NonNull::new)?;
    addresses.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn the_rows_are_set_and_nothing_else() {
        let (before, context) = (LlamaContextParams::default(), NonZeroU32::new(77));
        let after = with_outputs(5, before.clone().with_n_ctx(context));
        assert!(format!("{after:?}").contains("n_outputs_max: 5"), "{after:?}");
        assert_eq!((after.n_ctx(), after.n_batch(), after.n_ubatch()), (context, before.n_batch(), before.n_ubatch()));
        assert_eq!((after.n_threads(), after.n_seq_max()), (before.n_threads(), before.n_seq_max()));
    }
}
