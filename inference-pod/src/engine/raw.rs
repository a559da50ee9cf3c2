//! Two things of llama.cpp that `llama-cpp-2` doesn't wrap: room for logits, and threads that stay between steps.

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_sys_2 as sys;
use std::ptr::NonNull;

/// How long idle threads spin before they sleep, in llama.cpp's unit (131,072 turns of a loop): about five milliseconds,
/// longer than from one step to the next. Its default is fifty times that, which other contexts and requests would pay for.
const POLL: u32 = 1;
/// What a wrapper with a null or an empty thing in it holds beside its pointer is less than any address.
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

/// Threads that compute for one context. Without them llama.cpp starts new ones for every step. Drop it after the context.
#[derive(Debug)]
pub(super) struct Threads(NonNull<sys::ggml_threadpool>);

/// SAFETY: llama.cpp's pool may be used from any one thread at a time, and we only ever free it.
#[expect(unsafe_code, reason = "an engine moves to its own thread")]
unsafe impl Send for Threads {}

impl Threads {
    /// Has a context compute with `count` threads that stay, the caller's among them. None where llama.cpp has no memory for
    /// them, or the wrapper is not what it was in the version that is pinned: then it computes as it does without.
    pub(super) fn attach(context: &mut LlamaContext<'_>, count: i32) -> Option<Self> {
        let context = pointer(context)?;
        // SAFETY: the parameters are plain data that we own; the pool is freed after the context, see `Drop`. `context` is
        // the live context of the wrapper, which we borrow.
        #[expect(unsafe_code, reason = "llama-cpp-2 doesn't wrap thread pools")]
        unsafe {
            let mut params = sys::ggml_threadpool_params_default(count);
            params.poll = POLL;
            let pool = NonNull::new(sys::ggml_threadpool_new(&raw mut params))?;
            sys::llama_attach_threadpool(context.as_ptr(), pool.as_ptr(), pool.as_ptr());
            Some(Self(pool))
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_threadpool_new`, freed once, and its context is gone.
        #[expect(unsafe_code, reason = "llama-cpp-2 doesn't wrap thread pools")]
        unsafe {
            sys::ggml_threadpool_free(self.0.as_ptr());
        }
    }
}

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
