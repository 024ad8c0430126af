//! A bounds-checked reader of big-endian bit fields, for codec headers that are not byte-aligned.
//!
//! In: a header's bytes. Out: fields. It does not undo emulation prevention.

use crate::error::Error;

/// Reads bits from the most significant one on.
#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits already read.
    at: usize,
    /// Names the structure in errors.
    what: &'static str,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, at: 0, what }
    }

    /// Reads `count` bits, at most 32.
    pub(super) fn bits(&mut self, count: u32) -> Result<u32, Error> {
        debug_assert!(count <= 32);
        if self.left() < count as usize {
            return Err(Error::Truncated { what: self.what });
        }
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes[self.at / 8];
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Error> {
        Ok(self.bits(1)? == 1)
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), Error> {
        if self.left() < count {
            return Err(Error::Truncated { what: self.what });
        }
        self.at += count;
        Ok(())
    }

    pub(super) fn align(&mut self) {
        self.at = self.at.next_multiple_of(8).min(self.bytes.len() * 8);
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cross_bytes_and_the_end_is_an_error() {
        let mut r = BitReader::new(&[0b1010_0001, 0b1000_0000], "test");
        assert_eq!(r.bits(3), Ok(0b101));
        assert_eq!(r.bits(6), Ok(0b000_011));
        r.align();
        assert_eq!(r.left(), 0);
        assert_eq!(r.bits(1), Err(Error::Truncated { what: "test" }));
        assert_eq!(r.skip(1), Err(Error::Truncated { what: "test" }));
    }
}
