//! What rules are made of: one step each, encoded.
//!
//! Only the steps that this program uses. A rule goes on from step to step as long as each of them
//! holds; registers hold values in between. Nothing here checks that a rule makes sense.

use super::encode::Attributes;

const INTERFACE_NAME_SIZE: usize = 16;
const REGISTER_VERDICT: u32 = 0;
const LOOKUP_INVERTED: u32 = 1;
const CHECKSUM_INTERNET: u32 = 1;
const CHECKSUM_OF_PSEUDO_HEADER: u32 = 1;

/// A register: sixteen of four bytes each; values that are longer take the following ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register(u32);

impl Register {
    /// The first, for most values.
    pub(crate) const FIRST: Self = Self(8);
    /// Far enough behind the first for the longest value.
    pub(crate) const SECOND: Self = Self(16);

    /// The one so many bytes behind this one; they are a multiple of four.
    pub(crate) const fn behind(self, bytes: u32) -> Self {
        Self(self.0 + bytes / 4)
    }
}

/// A property of a packet that is not in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    /// Protocol in the frame, as Ethernet numbers them.
    Protocol = 1,
    /// Number of the interface it came in by.
    InputIndex = 4,
    /// Name of the interface it came in by.
    InputInterface = 6,
    /// Name of the interface it leaves by.
    OutputInterface = 7,
    /// Number of the protocol inside IP; packets without one go on to the next rule.
    Inner = 16,
    /// To whom the frame is addressed, as the kernel sees it.
    Addressee = 19,
}

/// From where bytes of a packet are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// The frame's own header.
    Frame = 0,
    /// The header of IP or ARP.
    Network = 1,
    /// The header of TCP, UDP or ICMP.
    Inner = 2,
}

/// A range of bytes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) base: Base,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// How a checksum follows a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// No checksum covers it.
    None,
    /// One so many bytes behind the base.
    At(u32),
    /// That of the inner protocol, which covers the addresses too.
    OfInner,
}

/// Whether values are to be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal = 0,
    Unequal = 1,
    Below = 2,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    Drop,
    Accept,
    /// Back to where this chain was jumped to from.
    Return,
    /// Through another chain, and back.
    Jump(&'a str),
    /// To another chain, for good.
    Goto(&'a str),
}

/// One step of a rule, encoded.
#[derive(Clone)]
pub(crate) struct Expression(Attributes);

impl Expression {
    pub(super) fn attributes(&self) -> &Attributes {
        &self.0
    }
}

/// Loads a property.
pub(crate) fn load(what: Meta, to: Register) -> Expression {
    expression("meta", Attributes::new().number(1, to.0).number(2, what as u32))
}

/// Sets a property to what a register holds.
pub(crate) fn set_meta(what: Meta, from: Register) -> Expression {
    expression("meta", Attributes::new().number(2, what as u32).number(3, from.0))
}

/// Loads bytes of the packet.
pub(crate) fn read(field: Field, to: Register) -> Expression {
    expression("payload", place(field).number(1, to.0))
}

/// Overwrites bytes of the packet with what a register holds.
pub(crate) fn write(field: Field, from: Register, checksum: Checksum) -> Expression {
    let fields = place(field).number(5, from.0);
    let fields = match checksum {
        Checksum::None => fields,
        Checksum::At(offset) => fields.number(6, CHECKSUM_INTERNET).number(7, offset),
        Checksum::OfInner => fields.number(8, CHECKSUM_OF_PSEUDO_HEADER),
    };
    expression("payload", fields)
}

fn place(field: Field) -> Attributes {
    Attributes::new().number(2, field.base as u32).number(3, field.offset).number(4, field.length)
}

/// Loads what connection tracking knows of the packet, as bits (see [`state`]).
pub(crate) fn connection_state(to: Register) -> Expression {
    expression("ct", Attributes::new().number(1, to.0).number(2, 0))
}

/// Bits of [`connection_state`], in this machine's order of bytes.
pub(crate) mod state {
    pub(crate) const ESTABLISHED: u32 = 2;
    pub(crate) const RELATED: u32 = 4;
}

/// Keeps only some bits of at most 16 bytes.
pub(crate) fn mask(register: Register, bits: &[u8]) -> Expression {
    let length = u32::try_from(bits.len()).unwrap_or(0);
    let fields = Attributes::new()
        .number(1, register.0)
        .number(2, register.0)
        .number(3, length)
        .nested(4, &value(bits))
        .nested(5, &value(&vec![0; bits.len()]));
    expression("bitwise", fields)
}

/// Goes on if a register compares so with these bytes.
pub(crate) fn compare(register: Register, how: Compare, with: &[u8]) -> Expression {
    let fields = Attributes::new().number(1, register.0).number(2, how as u32);
    expression("cmp", fields.nested(3, &value(with)))
}

/// Goes on if a register holds this interface name, of at most 15 bytes.
pub(crate) fn compare_interface(register: Register, name: &str) -> Expression {
    let mut padded = [0; INTERFACE_NAME_SIZE];
    for (to, from) in padded[..INTERFACE_NAME_SIZE - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    compare(register, Compare::Equal, &padded)
}

/// Puts a constant of at most 16 bytes into a register.
pub(crate) fn constant(register: Register, bytes: &[u8]) -> Expression {
    let fields = Attributes::new().number(1, register.0).nested(2, &value(bytes));
    expression("immediate", fields)
}

/// Replaces the bytes from a register on by their hash, scaled to `modulus`.
pub(crate) fn hash(register: Register, length: u32, modulus: u32, seed: u32) -> Expression {
    let fields = Attributes::new()
        .number(1, register.0)
        .number(2, register.0)
        .number(3, length)
        .number(4, modulus)
        .number(5, seed);
    expression("hash", fields)
}

/// Looks a register up in a map of verdicts and follows the one that it finds.
pub(crate) fn follow(map: &str, key: Register) -> Expression {
    let fields = Attributes::new().text(1, map).number(2, key.0).number(3, REGISTER_VERDICT);
    expression("lookup", fields)
}

/// Goes on if a register is in a set, or is not.
pub(crate) fn is_in(set: &str, key: Register, wanted: bool) -> Expression {
    let fields = Attributes::new().text(1, set).number(2, key.0);
    let fields = if wanted { fields } else { fields.number(5, LOOKUP_INVERTED) };
    expression("lookup", fields)
}

/// Sends the frame out by the device whose number a register holds; the packet is gone then.
pub(crate) fn forward(device: Register) -> Expression {
    expression("fwd", Attributes::new().number(1, device.0))
}

/// Sends a copy of the frame out by the device whose number a register holds.
pub(crate) fn copy_frame(device: Register) -> Expression {
    expression("dup", Attributes::new().number(2, device.0))
}

/// Sends a copy of the packet to the neighbour whose address a register holds.
pub(crate) fn copy_packet(neighbour: Register, device: Register) -> Expression {
    expression("dup", Attributes::new().number(1, neighbour.0).number(2, device.0))
}

/// Ends the rule with a verdict.
pub(crate) fn verdict(verdict: Verdict<'_>) -> Expression {
    let fields = Attributes::new().number(1, REGISTER_VERDICT).nested(2, &verdict_data(verdict));
    expression("immediate", fields)
}

pub(super) fn verdict_data(verdict: Verdict<'_>) -> Attributes {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3_i32, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    let mut fields = Attributes::new().number(1, code.cast_unsigned());
    if let Some(chain) = chain {
        fields = fields.text(2, chain);
    }
    Attributes::new().nested(2, &fields)
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(1, bytes)
}

fn expression(name: &str, fields: Attributes) -> Expression {
    Expression(Attributes::new().text(1, name).nested(2, &fields))
}

/// A step that no kernel has, for the test of how one is named that is missing.
#[cfg(test)]
pub(crate) fn unknown() -> Expression {
    expression("evenkeel", Attributes::new())
}
