//! What the gateways are told: models, endpoints, keys and budgets, as one versioned value.

mod press;
mod publish;
mod snapshot;
mod tokenizer;

pub use press::Press;
pub use publish::{Published, Publisher};
pub use snapshot::{Inputs, build};
pub use tokenizer::refresh as refresh_tokenizers;
