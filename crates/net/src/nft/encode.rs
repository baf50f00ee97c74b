//! Bytes of nf_tables messages: attributes, expressions, and batches of them.
//!
//! Only encoding, and reading of acknowledgements; sending is the parent module's. The numbers are
//! those of the kernel's `nfnetlink.h` and `nf_tables.h`.

use std::io;

/// Before routing's filters in other tables; the usual place of a filter chain.
pub(super) const PRIORITY_FILTER: i32 = 0;
/// Frames that pass from one port of a bridge to another.
pub(super) const HOOK_BRIDGE_FORWARD: u32 = 2;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACKNOWLEDGE: u16 = libc::NLM_F_ACK as u16;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;

const HEADER_LENGTH: usize = 16;
const NESTED: u16 = 0x8000;
const REGISTER_VERDICT: u32 = 0;
const REGISTER_1: u32 = 1;
const COMPARE_EQUAL: u32 = 0;
const INTERFACE_NAME_SIZE: usize = 16;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Frames on bridges.
    Bridge = 7,
}

/// A property of a packet that is not in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meta {
    /// Name of the interface it came in by.
    InputInterface = 6,
    /// Name of the interface it leaves by.
    OutputInterface = 7,
    /// Number of the protocol inside IP; packets without one go on to the next rule.
    Protocol = 16,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Drop = 0,
}

/// A chain and the table it is in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain<'a> {
    pub(super) table: &'a str,
    pub(super) name: &'a str,
}

/// One step of a rule, encoded.
#[derive(Clone)]
pub(super) struct Expression(Attributes);

/// Loads a property into the register.
pub(super) fn load(what: Meta) -> Expression {
    // Destination register and key.
    expression("meta", Attributes::new().number(1, REGISTER_1).number(2, what as u32))
}

/// Goes on with the rule if the register holds this interface name, of at most 15 bytes.
pub(super) fn compare_interface(name: &str) -> Expression {
    let mut padded = [0; INTERFACE_NAME_SIZE];
    for (to, from) in padded[..INTERFACE_NAME_SIZE - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    compare(&padded)
}

/// Goes on with the rule if the register holds these bytes.
pub(super) fn compare(value: &[u8]) -> Expression {
    let data = Attributes::new().bytes(1, value);
    let fields = Attributes::new().number(1, REGISTER_1).number(2, COMPARE_EQUAL);
    expression("cmp", fields.nested(3, &data))
}

/// Ends the rule with a verdict.
pub(super) fn verdict(verdict: Verdict) -> Expression {
    let code = Attributes::new().number(1, verdict as u32);
    let data = Attributes::new().nested(2, &code);
    expression("immediate", Attributes::new().number(1, REGISTER_VERDICT).nested(2, &data))
}

fn expression(name: &str, fields: Attributes) -> Expression {
    Expression(Attributes::new().text(1, name).nested(2, &fields))
}

/// Changes that the kernel makes all together or not at all.
pub(super) struct Batch {
    bytes: Vec<u8>,
    family: Family,
    sequence: u32,
}

impl Batch {
    pub(super) fn new(family: Family) -> Self {
        let mut batch = Self { bytes: Vec::new(), family, sequence: 0 };
        batch.message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &Attributes::new());
        batch
    }

    /// Removes a table with all that is in it, if it exists.
    pub(super) fn remove_table(&mut self, name: &str) {
        // Removing what is not there would fail, so that it is created first.
        self.add_table(name);
        self.change(DELETE_TABLE, 0, &Attributes::new().text(1, name));
    }

    /// Creates a table unless it exists.
    pub(super) fn add_table(&mut self, name: &str) {
        self.change(NEW_TABLE, CREATE, &Attributes::new().text(1, name));
    }

    /// Creates a filter chain at a hook.
    pub(super) fn add_chain(&mut self, chain: Chain<'_>, hook: u32, priority: i32) {
        let place = Attributes::new().number(1, hook).number(2, priority.cast_unsigned());
        let attributes = Attributes::new()
            .text(1, chain.table)
            .text(3, chain.name)
            .nested(4, &place)
            .text(7, "filter");
        self.change(NEW_CHAIN, CREATE, &attributes);
    }

    /// Appends a rule to a chain.
    pub(super) fn add_rule(&mut self, chain: Chain<'_>, expressions: &[Expression]) {
        let mut list = Attributes::new();
        for Expression(attributes) in expressions {
            list = list.nested(1, attributes);
        }
        let attributes =
            Attributes::new().text(1, chain.table).text(2, chain.name).nested(4, &list);
        self.change(NEW_RULE, CREATE | APPEND, &attributes);
    }

    /// The bytes, and the sequence number whose acknowledgement is the last.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        let last = self.sequence;
        self.message(BATCH_END, REQUEST, 0, SUBSYSTEM, &Attributes::new());
        (self.bytes, last)
    }

    fn change(&mut self, kind: u16, flags: u16, attributes: &Attributes) {
        let family = self.family as u8;
        self.message(kind, REQUEST | ACKNOWLEDGE | flags, family, 0, attributes);
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, content: &Attributes) {
        self.sequence += 1;
        let length = HEADER_LENGTH + 4 + content.0.len();
        self.bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        // Port number: the kernel fills it in.
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(&content.0);
    }
}

/// A sequence of attributes, each padded to four bytes.
#[derive(Clone)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    fn nested(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// The answers in a datagram: which message, and what became of it.
pub(super) fn answers(datagram: &[u8]) -> Vec<(u32, io::Result<()>)> {
    let mut answers = Vec::new();
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<{ HEADER_LENGTH + 4 }>() {
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| header[at + i]));
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if kind == libc::NLMSG_ERROR as u16 {
            let code = word(HEADER_LENGTH).cast_signed();
            let result = match code {
                0 => Ok(()),
                _ => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            };
            answers.push((word(8), result));
        }
        // At least a header, so that a wrong length cannot make the loop stand still.
        let length = (word(0) as usize).max(HEADER_LENGTH).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let inner = Attributes::new().text(1, "meta");
        assert_eq!(inner.0, [9, 0, 1, 0, b'm', b'e', b't', b'a', 0, 0, 0, 0]);
        let outer = Attributes::new().nested(2, &inner);
        assert_eq!(&outer.0[..4], [16, 0, 2, 0x80]);
        assert_eq!(&outer.0[4..], inner.0);
    }

    #[test]
    fn refusals_and_garbage_are_read() {
        let mut datagram = Vec::new();
        datagram.extend(36_u32.to_ne_bytes());
        datagram.extend((libc::NLMSG_ERROR as u16).to_ne_bytes());
        datagram.extend([0; 2]);
        datagram.extend(7_u32.to_ne_bytes());
        datagram.extend([0; 4]);
        datagram.extend((-libc::EPERM).to_ne_bytes());
        datagram.extend([0; 16]);
        let answers = answers(&datagram);
        assert_eq!(answers.len(), 1);
        let (sequence, result) = &answers[0];
        assert_eq!(*sequence, 7);
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
        assert_eq!(errno, Some(libc::EPERM));
        assert!(super::answers(&[0; 64]).is_empty());
    }
}
