//! Whether clients have a server with multicast delivery, where every node receives everything:
//! a bucket is served by who has it in its kernel. For directed delivery the way of a packet is
//! followed in `promises`.

use std::time::Duration;

use cluster::farm::BUCKETS;
use model::Time;
use model::config::Delivery;

use super::promises::FarmPromise;
use super::{TIMEOUT, World};

/// A change lets nobody wait for longer, once those who are lost are known to be.
const CHANGES_WITHIN: Duration = TIMEOUT;

/// What is watched.
#[derive(Debug)]
pub(super) struct Service {
    /// For how long a bucket may be without a server.
    within: Duration,
    /// Since when each is; none that nobody served at the beginning is looked at.
    unserved: Vec<(usize, Option<Time>)>,
}

impl World {
    /// From now on whoever is served has a server again after a change, and after so much more.
    pub(super) fn watch_service(&mut self, more: Duration) {
        if self.delivery == Delivery::Multicast && self.violation.is_none() {
            let served = (0..BUCKETS).filter(|bucket| self.is_served(*bucket));
            let unserved = served.map(|bucket| (bucket, None)).collect();
            self.watch.service = Some(Service { within: CHANGES_WITHIN + more, unserved });
        }
    }

    pub(super) fn look_at_service(&mut self) {
        let Some(mut service) = self.watch.service.take() else { return };
        for (bucket, since) in &mut service.unserved {
            if self.is_served(*bucket) {
                *since = None;
            } else if self.now.since(*since.get_or_insert(self.now)) > service.within {
                let what = format!("nobody has served bucket {bucket} for {:?}", service.within);
                return self.broken(FarmPromise::NobodyUnserved, what);
            }
        }
        self.watch.service = Some(service);
    }

    fn is_served(&self, bucket: usize) -> bool {
        (0..self.hosts.len()).any(|i| {
            let owner = self.hosts[i].kernel.buckets.get(bucket).and_then(|it| it.owner);
            owner.map(usize::from) == Some(i)
        })
    }
}
