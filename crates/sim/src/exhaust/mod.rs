//! The model check: every order of events of the smallest cluster, to a depth.
//!
//! Two nodes and a witness, with the code that decides in production, are led from a few
//! beginnings through everything that can happen next, and from there again (`choices`), as far as
//! a budget of rare events allows. Clocks run when they are chosen to, so nothing that holds here
//! rests on time. States that differ in nothing that matters are looked at once (`stamp`). What
//! breaks a promise is told as the list of steps that leads there.
//!
//! What the world of this crate adds (delays, addresses, slow disks) is not looked at here; and
//! what is beyond the depth or the budget is left to random schedules.

mod cases;
mod choices;
mod pair;
mod perform;
mod search;
mod stamp;
mod steps;
mod tell;

pub use cases::{Beginning, Case, cases};
pub use choices::{Choice, OfWitness, Step, Trap};
pub use pair::Budget;
pub use search::{Found, Outcome, search};
pub use tell::{Told, follow, tell};
