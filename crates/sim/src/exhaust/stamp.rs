//! The stamp of a state: equal for states that differ in nothing a decision can depend on.
//!
//! Whatever the core can write down goes through a serializer that writes nothing and mixes a
//! number instead. Times count from the node's own present, ids are numbered in the order in which
//! they are met, and what only people see is left out. Two different states with the same stamp
//! would hide one of them; with 64 bits and some millions of states that is one chance in a
//! hundred thousand.

use std::fmt;

use model::Time;
use serde::ser::{self, Serialize, Serializer};

/// Times are told apart as far as they lie, in milliseconds from now, on the same side of these:
/// the delays of the core, and what follows from adding them up.
const CLASSES: [i128; 4] = [-2500, -2000, 0, 1000];
/// What no decision of a later input depends on: texts, what is derived from the rest, counters.
const IGNORED: &[&str] = &[
    "announced",
    "config",
    "counts",
    "digest",
    "effects",
    "evidence",
    "handled",
    "jobs",
    "last_front",
    "last_good",
    "module",
    "now",
    "persisted",
    "probe_at",
    "reasons",
    "replication",
    "rng",
    "sentence",
    "serial",
    "served",
    "shown",
    "wake",
];

/// Mixes what it is given into one number.
#[derive(Debug)]
pub(super) struct Stamp {
    mixed: u64,
    ids: Vec<u128>,
    /// The present of whose times are mixed in.
    now: Time,
    /// The next number is of this kind.
    next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Plain,
    Time,
}

/// A value that cannot be mixed in; there is none in what the core writes down.
#[derive(Debug)]
pub(super) struct Unmixable;

impl fmt::Display for Unmixable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of this kind cannot be mixed into a stamp")
    }
}

impl std::error::Error for Unmixable {}

impl ser::Error for Unmixable {
    fn custom<T: fmt::Display>(_: T) -> Unmixable {
        Unmixable
    }
}

impl Stamp {
    pub(super) fn new() -> Stamp {
        Stamp { mixed: 0x1234_5678_9abc_def1, ids: Vec::new(), now: Time::ZERO, next: Next::Plain }
    }

    pub(super) fn value(&self) -> u64 {
        self.mixed
    }

    /// Times are on a clock that shows this now.
    pub(super) fn at(&mut self, now: Time) {
        self.now = now;
    }

    pub(super) fn number(&mut self, number: u64) {
        let product = u128::from(self.mixed ^ number ^ 0xa076_1d64_78bd_642f)
            * u128::from(0xe703_7ed1_a0b4_28db_u64);
        let folded = (product as u64) ^ ((product >> 64) as u64);
        self.mixed = folded.wrapping_add(self.mixed.rotate_left(23)) ^ 0x8ebc_6af0_9c88_c6e3;
    }

    fn time(&mut self, at: Time) {
        let (at, now) = (i128::from(at.as_millis()), i128::from(self.now.as_millis()));
        let class = CLASSES.iter().position(|limit| at - now <= *limit);
        self.number(class.unwrap_or(CLASSES.len()) as u64);
    }

    fn id(&mut self, id: u128) {
        if id == 0 {
            // It stands for none.
            return self.number(u64::MAX - 1);
        }
        let known = self.ids.iter().position(|known| *known == id);
        let at = known.unwrap_or_else(|| {
            self.ids.push(id);
            self.ids.len() - 1
        });
        self.number(at as u64);
    }

    /// Mixes in anything that can be written down.
    pub(super) fn take(&mut self, value: &impl Serialize) {
        if value.serialize(&mut *self).is_err() {
            // Nothing that is taken can fail; if it did, fewer states would count as equal.
            self.number(u64::MAX);
        }
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        for chunk in text.as_bytes().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(bytes));
        }
    }
}

/// The parts of a compound value are mixed in one after the other.
impl ser::SerializeSeq for &mut Stamp {
    type Ok = ();
    type Error = Unmixable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unmixable> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Unmixable> {
        self.number(7);
        Ok(())
    }
}

macro_rules! parts {
    ($trait:ident, $method:ident) => {
        impl ser::$trait for &mut Stamp {
            type Ok = ();
            type Error = Unmixable;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unmixable> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Unmixable> {
                Ok(())
            }
        }
    };
}

macro_rules! fields {
    ($trait:ident) => {
        impl ser::$trait for &mut Stamp {
            type Ok = ();
            type Error = Unmixable;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Unmixable> {
                if IGNORED.contains(&name) {
                    return Ok(());
                }
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Unmixable> {
                Ok(())
            }
        }
    };
}

parts!(SerializeTuple, serialize_element);
parts!(SerializeTupleStruct, serialize_field);
parts!(SerializeTupleVariant, serialize_field);
fields!(SerializeStruct);
fields!(SerializeStructVariant);

impl ser::SerializeMap for &mut Stamp {
    type Ok = ();
    type Error = Unmixable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unmixable> {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unmixable> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Unmixable> {
        self.number(9);
        Ok(())
    }
}

macro_rules! numbers {
    ($($method:ident: $kind:ty),*) => {
        $(fn $method(self, value: $kind) -> Result<(), Unmixable> {
            self.number(value as u64);
            Ok(())
        })*
    };
}

impl Serializer for &mut Stamp {
    type Ok = ();
    type Error = Unmixable;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    numbers!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_char: char
    );

    fn serialize_u64(self, value: u64) -> Result<(), Unmixable> {
        match std::mem::replace(&mut self.next, Next::Plain) {
            Next::Time => self.time(Time::from_nanos(value)),
            Next::Plain => self.number(value),
        }
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Unmixable> {
        self.id(value);
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), Unmixable> {
        Err(Unmixable)
    }

    fn serialize_f64(self, _: f64) -> Result<(), Unmixable> {
        Err(Unmixable)
    }

    fn serialize_str(self, value: &str) -> Result<(), Unmixable> {
        self.text(value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unmixable> {
        value.iter().for_each(|byte| self.number(u64::from(*byte)));
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Unmixable> {
        self.number(3);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unmixable> {
        self.number(4);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unmixable> {
        self.number(5);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unmixable> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), Unmixable> {
        self.number(u64::from(index) + 11);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unmixable> {
        if name == "Time" {
            self.next = Next::Time;
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unmixable> {
        self.number(u64::from(index) + 11);
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Unmixable> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Unmixable> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Unmixable> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unmixable> {
        self.number(u64::from(index) + 11);
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Unmixable> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Unmixable> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unmixable> {
        self.number(u64::from(index) + 11);
        Ok(self)
    }
}
