//! Plan → cluster. What to do is a pure list of [`Order`]s; each is validated again before it is carried out.

mod apply;
mod events;
mod orders;
mod tell;

pub(crate) use apply::timely;
pub use apply::{Actuator, Error, Guard};
pub use events::{Announcer, Note};
pub use orders::{Order, orders, retire};
pub use tell::Teller;
