//! A simulated world for the cluster's core: two nodes, a network, a witness, disks and clocks.
//!
//! It runs the very code that runs in production and breaks everything around it by seed. After
//! each event the promises are checked; what breaks one is a [`Violation`], never a panic, so that
//! a schedule can be shortened by running it again and again. A schedule is a list of the commands
//! of the story language, so that what fails is at once a story for `tests/scenarios`.
//!
//! It models only what decisions depend on: a tree of files is a list of writes. When a write is
//! answered is decided by `replica`. Files and real links are tried in the lab, and how a resync
//! makes trees equal in the tests of `replica`.

mod acknowledging;
pub mod application;
mod beside;
pub mod clock;
mod configuring;
pub mod cuts;
pub mod dice;
mod disks;
pub mod effects;
pub mod exhaust;
pub mod farm;
pub mod host;
pub mod light;
pub mod live;
mod names;
pub mod network;
pub mod promises;
pub mod replicator;
pub mod schedule;
mod settings;
pub mod shrink;
pub mod story;
mod upgrading;
pub mod world;

pub use promises::{Promise, Violation};
pub use world::World;
