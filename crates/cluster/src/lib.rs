//! The decisions of a cluster, as pure state machines: input in, effects out.
//!
//! No clock, socket, file, thread or unseeded randomness; the simulator runs the very code that
//! runs in production. How data is copied is none of its business: that is `replica`, which this
//! crate does not know. The shell translates between the two.

mod application;
pub mod configuration;
pub mod contact;
pub mod effect;
pub mod farm;
mod farming;
pub mod found;
pub mod input;
pub mod isolation;
mod light;
mod mirror;
mod module;
mod node;
pub mod record;
pub mod replay;
pub mod report;
mod rng;
pub mod status;
pub mod watchdog;
pub mod witness;

pub use contact::Contact;
pub use effect::Effect;
pub use input::Input;
pub use mirror::data_fault;
pub use node::Node;
pub use record::Record;
