//! `n_outputs_max` of llama.cpp, which `llama-cpp-2` doesn't wrap.

use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_sys_2::llama_context_params;

/// With room for the logits of so many rows of a batch. By default llama.cpp has room for those of every row, which is 25 MB
/// for a vocabulary of 49,152 tokens and a batch of 128.
pub(super) fn at_most(rows: u32, mut params: LlamaContextParams) -> LlamaContextParams {
    const { assert!(size_of::<LlamaContextParams>() == size_of::<llama_context_params>()) };
    // SAFETY: the wrapper holds llama.cpp's own parameters and, as the assertion sees, nothing beside them, so they lie at
    // its beginning; `params` is ours, and any number is a valid value of the field.
    #[expect(unsafe_code, reason = "llama-cpp-2 has no setter for n_outputs_max")]
    unsafe {
        (*(&raw mut params).cast::<llama_context_params>()).n_outputs_max = rows;
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn the_rows_are_set_and_nothing_else() {
        let (before, context) = (LlamaContextParams::default(), NonZeroU32::new(77));
        let after = at_most(5, before.clone().with_n_ctx(context));
        assert!(format!("{after:?}").contains("n_outputs_max: 5"), "{after:?}");
        assert_eq!((after.n_ctx(), after.n_batch(), after.n_ubatch()), (context, before.n_batch(), before.n_ubatch()));
        assert_eq!((after.n_threads(), after.n_seq_max()), (before.n_threads(), before.n_seq_max()));
    }
}
