//! The byte form of manifest entries: a version byte, then the entry in postcard's encoding.
//!
//! In: bytes the wire has already length-checked. Out: entries. The wire carries these opaquely.

use bytes::Bytes;

use super::Entry;
use crate::error::Error;

/// The version byte in front of every entry.
///
/// Version history: 1, the first.
pub const MANIFEST_VERSION: u8 = 1;

/// The largest encoded entry. A configuration with two tracks is the biggest: parameter sets are
/// held under 16 KiB each by [`crate::codec::avc`].
pub const MAX_ENTRY_BYTES: usize = 64 * 1024;

/// Encodes one entry.
///
/// # Errors
/// [`Error::TooLarge`] when it is over [`MAX_ENTRY_BYTES`].
pub fn encode(entry: &Entry) -> Result<Bytes, Error> {
    let out = postcard::to_extend(entry, vec![MANIFEST_VERSION])
        .map_err(|e| Error::invalid("manifest entry", e.to_string()))?;
    check_len(out.len())?;
    Ok(Bytes::from(out))
}

/// Decodes one entry; trailing bytes are an error.
///
/// # Errors
/// Names the version or the fault; never allocates more than the input's length.
pub fn decode(bytes: &[u8]) -> Result<Entry, Error> {
    check_len(bytes.len())?;
    let (&version, rest) =
        bytes.split_first().ok_or(Error::Truncated { what: "manifest entry" })?;
    if version != MANIFEST_VERSION {
        return Err(Error::Unsupported { what: "manifest version", name: version.to_string() });
    }
    let (entry, rest) = postcard::take_from_bytes::<Entry>(rest)
        .map_err(|e| Error::invalid("manifest entry", e.to_string()))?;
    if !rest.is_empty() {
        return Err(Error::invalid("manifest entry", format!("{} trailing bytes", rest.len())));
    }
    Ok(entry)
}

fn check_len(len: usize) -> Result<(), Error> {
    if len > MAX_ENTRY_BYTES {
        return Err(Error::TooLarge {
            what: "manifest entry bytes",
            found: len as u64,
            limit: MAX_ENTRY_BYTES as u64,
        });
    }
    Ok(())
}
