//! Whose files a source replicates, by name and number: the target checks that they are the same
//! people there.

use crate::frame::{Decoder, WireError, put_bytes};
use crate::op::{take_bool, take_limited};

/// Owners in one message.
pub const OWNERS_MAX: usize = 64;

/// Longest name of a user or group, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner<'a> {
    /// Whether it is a group.
    pub group: bool,
    /// Name.
    pub name: &'a [u8],
    /// Number, as files carry it.
    pub id: u32,
}

pub(crate) fn put_owners(out: &mut Vec<u8>, owners: &[Owner<'_>]) {
    for owner in owners.iter().take(OWNERS_MAX) {
        out.push(u8::from(owner.group));
        put_bytes(out, owner.name);
        out.extend_from_slice(&owner.id.to_le_bytes());
    }
}

pub(crate) fn take_owners<'a>(decoder: &mut Decoder<'a>) -> Result<Vec<Owner<'a>>, WireError> {
    let mut owners = Vec::new();
    while !decoder.is_empty() {
        if owners.len() == OWNERS_MAX {
            return Err(WireError::Value("number of owners"));
        }
        let group = take_bool(decoder)?;
        let name = take_limited(decoder, NAME_BYTES_MAX, "owner")?;
        owners.push(Owner { group, name, id: decoder.u32()? });
    }
    Ok(owners)
}
