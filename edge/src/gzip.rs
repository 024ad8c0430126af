//! gzip (RFC 1952) that says nothing of when and where, so that equal input gives equal bytes on
//! every edge.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, GzBuilder};

/// The operating system field of the header (RFC 1952, 2.3.1): unknown.
const OS_UNKNOWN: u8 = 255;

/// Compresses `text`.
pub(crate) fn gzip(text: &[u8]) -> Bytes {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .operating_system(OS_UNKNOWN)
        .write(Vec::with_capacity(text.len() / 4), Compression::default());
    encoder.write_all(text).expect("a Vec takes any bytes");
    Bytes::from(encoder.finish().expect("a Vec takes any bytes"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn it_says_nothing_of_time_or_place_and_unpacks() {
        let text = b"#EXTM3U\n".repeat(100);
        let packed = gzip(&text);
        assert_eq!(packed[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        assert_eq!(packed, gzip(&text));
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);
    }
}
