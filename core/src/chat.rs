//! Chat messages → the prompt's text, by the model's own Jinja template.
//!
//! Gateway and engine both call [`ChatTemplate::render`], so both count the same tokens. No clock: a template that asks
//! for today's date gets the `now` of its caller.

mod message;
mod template;

pub use message::{ChatError, Message, messages, tools};
pub use template::{ChatTemplate, TemplateError};
