//! The virtual addresses of a module on this node.
//!
//! Addresses carry a lifetime in the kernel, which is renewed: a daemon that died cannot hold one
//! for ever.

use std::time::Duration;

use model::Time;
use model::config::Vip;
use net::vip::{self, Holder};

/// Time between two renewals of the lifetime.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// Time between two announcements.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(60);

/// The virtual addresses of a module.
#[derive(Default)]
pub(crate) struct Addresses {
    held: Vec<Holder>,
    renewed: Time,
    announced: Time,
}

impl Addresses {
    /// Takes and announces all of them, or none.
    pub(crate) fn take(&mut self, vips: &[Vip], now: Time) -> Result<(), String> {
        let mut held = Vec::new();
        for vip in vips {
            match Holder::take(vip) {
                Ok(holder) => held.push(holder),
                Err(error) => {
                    self.held = held;
                    let _ = self.release(vips);
                    return Err(error.to_string());
                }
            }
        }
        *self = Addresses { held, renewed: now, announced: now };
        Ok(())
    }

    /// Drops all of them, also those that an earlier daemon took.
    pub(crate) fn release(&mut self, vips: &[Vip]) -> Result<(), String> {
        self.held.clear();
        let results: Vec<_> = vips.iter().map(vip::remove).collect();
        results.into_iter().collect::<Result<Vec<()>, _>>().map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Whether any is held.
    pub(crate) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Renews lifetimes and announcements that are due; says what failed.
    pub(crate) fn keep(&mut self, now: Time) -> Result<(), String> {
        if now.since(self.renewed) >= RENEW_EVERY {
            self.renewed = now;
            for holder in &mut self.held {
                holder.renew().map_err(|error| error.to_string())?;
            }
        }
        if now.since(self.announced) >= ANNOUNCE_EVERY {
            self.announced = now;
            for holder in &self.held {
                holder.announce().map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}
