//! What a following daemon of this boot must know of a farm, to go on where this one ended: the
//! kernel has never stopped. It is no record: a reboot voids it.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use cluster::farm::{Left, Seat};
use model::BootId;
use net::farm::Place;
use serde::{Deserialize, Serialize};

use super::places::{decode, encode};
use crate::durable;

/// What the file has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The boot that it is of.
    boot: BootId,
    /// What the core was at; nothing where the kernel serves nobody.
    pub(super) left: Option<Left>,
    /// Where the others are, as they said last.
    places: BTreeMap<Seat, Vec<u8>>,
}

impl Kept {
    pub(super) fn new(
        boot: BootId,
        left: Option<Left>,
        others: &BTreeMap<Seat, Vec<Place>>,
    ) -> Kept {
        let places = others.iter().filter_map(|(seat, places)| Some((*seat, encode(places)?)));
        Kept { boot, left, places: places.collect() }
    }

    /// Reads it; none where there is none of this boot, or none that could be read.
    pub(super) fn read(path: &Path, boot: BootId) -> Option<Kept> {
        let kept: Option<Kept> = durable::read(path).unwrap_or_else(|error| {
            // Without it the node begins as one that was away.
            eprintln!("! {}: {error}", path.display());
            None
        });
        kept.filter(|kept| kept.boot == boot)
    }

    /// Writes it, whole or not at all as far as this boot can tell; the disk is not waited for.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(&new, path)
    }

    pub(super) fn others(&self) -> BTreeMap<Seat, Vec<Place>> {
        let places = self.places.iter().filter_map(|(seat, bytes)| Some((*seat, decode(bytes)?)));
        places.collect()
    }
}
