//! Bytes of nf_tables messages: attributes, and batches of changes to tables, chains, rules, sets.
//!
//! Only encoding, and reading of acknowledgements; sending is the parent module's, and what rules
//! are made of is `expression`'s. The numbers are those of the kernel's `nfnetlink.h` and
//! `nf_tables.h`.

use std::io;

use super::expression::{Expression, Verdict, verdict_data};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const GET_CHAIN: u16 = (SUBSYSTEM << 8) | 4;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
const DELETE_RULE: u16 = (SUBSYSTEM << 8) | 8;
const NEW_SET: u16 = (SUBSYSTEM << 8) | 9;
const NEW_ELEMENTS: u16 = (SUBSYSTEM << 8) | 12;
const DELETE_ELEMENTS: u16 = (SUBSYSTEM << 8) | 14;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACKNOWLEDGE: u16 = libc::NLM_F_ACK as u16;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;

const HEADER_LENGTH: usize = 16;
/// Where a message's header has its flags.
const FLAGS_AT: usize = 6;
const NESTED: u16 = 0x8000;
const SET_IS_MAP: u32 = 8;
const DATA_IS_VERDICT: u32 = 0xffff_ff00;
/// How `nft list` shows the keys: as numbers in this machine's order of bytes, and as bytes.
const KEY_SHOWN_AS_MARK: u32 = 19;
const KEY_SHOWN_AS_MAC: u32 = 9;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Packets of IP version 4.
    Ip = 2,
    /// ARP.
    Arp = 3,
    /// Frames as they come from a device.
    NetDev = 5,
    /// Frames on bridges.
    Bridge = 7,
    /// Packets of IP version 6.
    Ip6 = 10,
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table<'a> {
    pub(crate) family: Family,
    pub(crate) name: &'a str,
}

/// Where the kernel calls a chain, and in which order among others there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook<'a> {
    pub(crate) number: u32,
    pub(crate) priority: i32,
    /// For chains of devices.
    pub(crate) device: Option<&'a str>,
}

/// What a set's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From numbers to verdicts.
    Verdicts,
    /// Hardware addresses.
    Macs,
}

/// Changes that the kernel makes all together or not at all.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    /// Where the last change begins.
    last: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), sequence: 0, last: 0 };
        batch.message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &Attributes::new());
        batch
    }

    /// Removes a table with all that is in it, if it exists.
    pub(crate) fn remove_table(&mut self, table: Table<'_>) {
        // Removing what is not there would fail, so that it is created first.
        self.add_table(table);
        self.change(table, DELETE_TABLE, 0, &Attributes::new().text(1, table.name));
    }

    /// Creates a table unless it exists.
    pub(crate) fn add_table(&mut self, table: Table<'_>) {
        self.change(table, NEW_TABLE, CREATE, &Attributes::new().text(1, table.name));
    }

    /// Creates a chain unless it exists: one that the kernel calls, or one for jumps.
    pub(crate) fn add_chain(&mut self, table: Table<'_>, name: &str, hook: Option<Hook<'_>>) {
        let mut attributes = Attributes::new().text(1, table.name).text(3, name);
        if let Some(hook) = hook {
            let priority = hook.priority.cast_unsigned();
            let mut place = Attributes::new().number(1, hook.number).number(2, priority);
            if let Some(device) = hook.device {
                place = place.text(3, device);
            }
            attributes = attributes.nested(4, &place).text(7, "filter");
        }
        self.change(table, NEW_CHAIN, CREATE, &attributes);
    }

    /// Appends a rule to a chain.
    pub(crate) fn add_rule(&mut self, table: Table<'_>, chain: &str, expressions: &[Expression]) {
        let mut list = Attributes::new();
        for expression in expressions {
            list = list.nested(1, expression.attributes());
        }
        let attributes = Attributes::new().text(1, table.name).text(2, chain).nested(4, &list);
        self.change(table, NEW_RULE, CREATE | APPEND, &attributes);
    }

    /// Removes all rules of a chain.
    pub(crate) fn clear_chain(&mut self, table: Table<'_>, chain: &str) {
        let attributes = Attributes::new().text(1, table.name).text(2, chain);
        self.change(table, DELETE_RULE, 0, &attributes);
    }

    /// Creates a set or map for at most `size` elements, unless it exists.
    pub(crate) fn add_set(&mut self, table: Table<'_>, name: &str, kind: Kind, size: u32) {
        let attributes = Attributes::new().text(1, table.name).text(2, name);
        let attributes = match kind {
            Kind::Verdicts => attributes
                .number(3, SET_IS_MAP)
                .number(4, KEY_SHOWN_AS_MARK)
                .number(5, 4)
                .number(6, DATA_IS_VERDICT)
                .bytes(13, &key_order()),
            Kind::Macs => attributes.number(3, 0).number(4, KEY_SHOWN_AS_MAC).number(5, 6),
        };
        // A known size lets the kernel choose its quickest table. Sets want a number of their own.
        let attributes =
            attributes.nested(9, &Attributes::new().number(1, size)).number(10, self.sequence);
        self.change(table, NEW_SET, CREATE, &attributes);
    }

    /// Removes all elements of a set.
    pub(crate) fn clear_set(&mut self, table: Table<'_>, set: &str) {
        let attributes = Attributes::new().text(1, table.name).text(2, set);
        self.change(table, DELETE_ELEMENTS, 0, &attributes);
    }

    /// Adds elements to a map of verdicts.
    pub(crate) fn add_verdicts<'v>(
        &mut self,
        table: Table<'_>,
        map: &str,
        elements: impl IntoIterator<Item = (u32, Verdict<'v>)>,
    ) {
        let elements = elements.into_iter().map(|(key, verdict)| {
            let key = Attributes::new().bytes(1, &key.to_ne_bytes());
            Attributes::new().nested(1, &key).nested(2, &verdict_data(verdict))
        });
        self.add_elements(table, map, elements);
    }

    /// Adds elements to a set of hardware addresses.
    pub(crate) fn add_macs(
        &mut self,
        table: Table<'_>,
        set: &str,
        elements: impl IntoIterator<Item = [u8; 6]>,
    ) {
        let key = |mac: [u8; 6]| Attributes::new().nested(1, &Attributes::new().bytes(1, &mac));
        self.add_elements(table, set, elements.into_iter().map(key));
    }

    fn add_elements(
        &mut self,
        table: Table<'_>,
        set: &str,
        elements: impl Iterator<Item = Attributes>,
    ) {
        let mut list = Attributes::new();
        for element in elements {
            list = list.nested(1, &element);
        }
        if list.0.is_empty() {
            return;
        }
        let attributes = Attributes::new().text(1, table.name).text(2, set).nested(3, &list);
        self.change(table, NEW_ELEMENTS, CREATE, &attributes);
    }

    /// The bytes, and the sequence number whose acknowledgement is the last.
    pub(crate) fn finish(mut self) -> (Vec<u8>, u32) {
        let last = self.sequence;
        // Refusals are told in any case, so that one yes for all is enough.
        if let Some(flags) = self.bytes.get_mut(self.last + FLAGS_AT) {
            *flags |= ACKNOWLEDGE as u8;
        }
        self.message(BATCH_END, REQUEST, 0, SUBSYSTEM, &Attributes::new());
        (self.bytes, last)
    }

    fn change(&mut self, table: Table<'_>, kind: u16, flags: u16, attributes: &Attributes) {
        self.last = self.bytes.len();
        self.message(kind, REQUEST | flags, table.family as u8, 0, attributes);
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, content: &Attributes) {
        self.sequence += 1;
        let header = Header { kind, flags, sequence: self.sequence, family, resource };
        header.write(content, &mut self.bytes);
    }
}

/// What `nft list` reads to show keys as the numbers that they are: in this machine's order.
fn key_order() -> [u8; 6] {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
}

/// A question whether a chain exists; its number is 1.
pub(crate) fn ask_for_chain(table: Table<'_>, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let content = Attributes::new().text(1, table.name).text(3, name);
    let flags = REQUEST | ACKNOWLEDGE;
    let family = table.family as u8;
    Header { kind: GET_CHAIN, flags, sequence: 1, family, resource: 0 }.write(&content, &mut bytes);
    bytes
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
}

impl Header {
    fn write(&self, content: &Attributes, bytes: &mut Vec<u8>) {
        let length = HEADER_LENGTH + 4 + content.0.len();
        bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        // Port number: the kernel fills it in.
        bytes.extend([0; 4]);
        bytes.extend([self.family, 0]);
        bytes.extend(self.resource.to_be_bytes());
        bytes.extend(&content.0);
    }
}

/// A sequence of attributes, each padded to four bytes.
#[derive(Clone)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(super) fn nested(self, kind: u16, inner: &Attributes) -> Self {
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
