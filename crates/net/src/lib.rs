//! Links, addresses, announcements, packet filters and pings, spoken to the kernel directly.
//!
//! Netlink and raw sockets only: neither `ip` nor `nft` need be installed. Everything is
//! synchronous and acts in the network namespace of the calling thread. Nothing here decides when
//! an address is taken or a link cut; callers do.

pub mod announce;
mod arp;
mod error;
pub mod farm;
pub mod link;
pub mod namespace;
mod neighbour;
pub mod nft;
pub mod ping;
pub mod route;
pub mod vip;

pub use error::Error;
