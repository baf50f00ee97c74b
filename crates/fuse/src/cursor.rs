//! Reads numbers, names and bytes off a buffer without ever looking past its end.
//!
//! Native byte order, as the kernel writes it. It does not know what it reads.

/// The rest of a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a>(&'a [u8]);

/// The buffer ended early, or a name has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor(bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_ne_bytes)
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Skips padding and fields that nobody needs.
    pub(crate) fn skip(&mut self, bytes: usize) -> Result<(), Short> {
        self.take(bytes).map(|_| ())
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Bytes up to a zero byte, which is swallowed.
    pub(crate) fn text(&mut self) -> Result<&'a [u8], Short> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Short)?;
        let text = self.take(end)?;
        self.skip(1)?;
        Ok(text)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Short)?;
        self.0 = rest;
        Ok(*taken)
    }
}
