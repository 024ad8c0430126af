//! AMF0, the value format of RTMP commands and of FLV script data, with a bound on everything.
//!
//! In: the payload of an RTMP command or data message, or of an FLV script tag, from an untrusted
//! peer. Out: [`Amf0`] values; and back to bytes for our own answers and script tags.
//!
//! Source: Adobe "Action Message Format – AMF 0" (2007), section 2. Values nest at most
//! [`MAX_DEPTH`] deep, one input holds at most [`MAX_VALUES`] values, a string at most
//! [`MAX_STRING_BYTES`]; nothing is allocated by a declared count. AMF3 is not read.

use std::borrow::Cow;

use crate::Error;

/// How deep values may nest; a plain value has depth 1. Real metadata needs 3.
pub const MAX_DEPTH: usize = 16;
/// How many values one input may hold, nested ones included. Real metadata needs about 60.
pub const MAX_VALUES: usize = 1024;
/// How long one string or member name may be, in bytes.
pub const MAX_STRING_BYTES: usize = 16 * 1024;

/// The name used in errors.
const WHAT: &str = "amf0";

/// Type markers (AMF 0, section 2.1).
mod marker {
    pub(super) const NUMBER: u8 = 0x00;
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const OBJECT: u8 = 0x03;
    pub(super) const MOVIE_CLIP: u8 = 0x04;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const UNDEFINED: u8 = 0x06;
    pub(super) const REFERENCE: u8 = 0x07;
    pub(super) const ECMA_ARRAY: u8 = 0x08;
    pub(super) const OBJECT_END: u8 = 0x09;
    pub(super) const STRICT_ARRAY: u8 = 0x0a;
    pub(super) const DATE: u8 = 0x0b;
    pub(super) const LONG_STRING: u8 = 0x0c;
    pub(super) const UNSUPPORTED: u8 = 0x0d;
    pub(super) const RECORD_SET: u8 = 0x0e;
    pub(super) const XML: u8 = 0x0f;
    pub(super) const TYPED_OBJECT: u8 = 0x10;
    pub(super) const AVMPLUS: u8 = 0x11;
}

/// The members of an object in the order they were sent; a name may come twice.
pub type Members = Vec<(String, Amf0)>;

/// One AMF0 value.
#[derive(Debug, Clone, PartialEq)]
pub enum Amf0 {
    /// A double.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// Text, short or long; the marker is a matter of its length.
    String(String),
    /// An anonymous object.
    Object(Members),
    /// Null.
    Null,
    /// Undefined.
    Undefined,
    /// A reference to the n-th complex value of the message. It is not followed.
    Reference(u16),
    /// An associative array: what most encoders send as metadata.
    EcmaArray(Members),
    /// An array.
    StrictArray(Vec<Amf0>),
    /// A point in time.
    Date {
        /// Milliseconds since the Unix epoch.
        unix_ms: f64,
        /// Time zone in minutes; reserved, zero by the specification.
        zone_min: i16,
    },
    /// A value the sender could not express.
    Unsupported,
    /// An XML document.
    Xml(String),
    /// An object of a named class.
    TypedObject {
        /// The class.
        class: String,
        /// Its members.
        members: Members,
    },
}

impl Amf0 {
    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a number.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The value of a boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    /// The members of an object, typed object or associative array.
    #[must_use]
    pub fn members(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Object(members)
            | Self::EcmaArray(members)
            | Self::TypedObject { members, .. } => Some(members),
            _ => None,
        }
    }

    /// The items of a strict array; the values of an associative one, which some peers send for it.
    pub fn items(&self) -> impl Iterator<Item = &Self> {
        let items = match self {
            Self::StrictArray(items) => items.as_slice(),
            _ => &[],
        };
        let members = match self {
            Self::EcmaArray(members) => members.as_slice(),
            _ => &[],
        };
        items.iter().chain(members.iter().map(|(_, value)| value))
    }

    /// The first member of this name, if this is an object and has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.members()?.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl From<&str> for Amf0 {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Amf0 {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<f64> for Amf0 {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

/// Reads values one after the other from one input.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    values: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input, values: 0 }
    }

    /// Whether all of the input was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes not yet read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads the next value.
    ///
    /// # Errors
    /// [`Error::Truncated`] if the input ends inside it, [`Error::TooLarge`] over a limit of this
    /// module, [`Error::Unsupported`] for AMF3 and the reserved types, [`Error::Invalid`] for an
    /// unknown marker. The reader is of no more use after an error.
    pub fn value(&mut self) -> Result<Amf0, Error> {
        self.value_at(1)
    }

    /// Recursion is bounded by `MAX_DEPTH`, so the stack is too.
    fn value_at(&mut self, depth: usize) -> Result<Amf0, Error> {
        if depth > MAX_DEPTH {
            return Err(too_large("amf0 nesting depth", depth, MAX_DEPTH));
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(too_large("amf0 values", self.values, MAX_VALUES));
        }
        let unsupported = |name: &str| Err(Error::Unsupported { what: WHAT, name: name.into() });
        match self.u8()? {
            marker::NUMBER => Ok(Amf0::Number(self.f64()?)),
            marker::BOOLEAN => Ok(Amf0::Boolean(self.u8()? != 0)),
            marker::STRING => Ok(Amf0::String(self.short_string()?)),
            marker::OBJECT => Ok(Amf0::Object(self.members(depth, None)?)),
            marker::NULL => Ok(Amf0::Null),
            marker::UNDEFINED => Ok(Amf0::Undefined),
            marker::REFERENCE => Ok(Amf0::Reference(self.u16()?)),
            marker::ECMA_ARRAY => {
                let declared = self.u32()?;
                Ok(Amf0::EcmaArray(self.members(depth, Some(declared))?))
            }
            marker::STRICT_ARRAY => self.strict_array(depth),
            marker::DATE => {
                let unix_ms = self.f64()?;
                let zone_min = self.u16()?.cast_signed();
                Ok(Amf0::Date { unix_ms, zone_min })
            }
            marker::LONG_STRING => Ok(Amf0::String(self.long_string()?)),
            marker::UNSUPPORTED => Ok(Amf0::Unsupported),
            marker::XML => Ok(Amf0::Xml(self.long_string()?)),
            marker::TYPED_OBJECT => {
                let class = self.short_string()?;
                Ok(Amf0::TypedObject { class, members: self.members(depth, None)? })
            }
            marker::AVMPLUS => unsupported("AMF3 (avmplus)"),
            marker::MOVIE_CLIP => unsupported("movie clip"),
            marker::RECORD_SET => unsupported("record set"),
            marker::OBJECT_END => Err(Error::invalid(WHAT, "object end outside an object")),
            other => Err(Error::invalid(WHAT, format!("unknown type marker {other:#04x}"))),
        }
    }

    /// Members up to the end marker. The declared count of an associative array is only a hint
    /// (section 2.10), but some encoders end the message after that many members and leave the end
    /// marker out, so an input that ends there is taken as complete.
    fn members(&mut self, depth: usize, declared: Option<u32>) -> Result<Members, Error> {
        let mut members = Members::new();
        loop {
            let complete = declared.is_some_and(|count| members.len() as u64 >= u64::from(count));
            if self.rest.is_empty() && complete {
                return Ok(members);
            }
            let name = self.short_string()?;
            if name.is_empty() && self.rest.first() == Some(&marker::OBJECT_END) {
                self.rest = &self.rest[1..];
                return Ok(members);
            }
            members.push((name, self.value_at(depth + 1)?));
        }
    }

    fn strict_array(&mut self, depth: usize) -> Result<Amf0, Error> {
        let declared = self.u32()? as usize;
        if declared > MAX_VALUES {
            return Err(too_large("amf0 array", declared, MAX_VALUES));
        }
        let mut items = Vec::new();
        for _ in 0..declared {
            items.push(self.value_at(depth + 1)?);
        }
        Ok(Amf0::StrictArray(items))
    }

    fn short_string(&mut self) -> Result<String, Error> {
        let length = usize::from(self.u16()?);
        self.string(length)
    }

    fn long_string(&mut self) -> Result<String, Error> {
        let length = self.u32()? as usize;
        self.string(length)
    }

    /// Text that is not UTF-8 is read with replacement characters: encoders put names in local
    /// encodings there, and no media depends on them.
    fn string(&mut self, length: usize) -> Result<String, Error> {
        if length > MAX_STRING_BYTES {
            return Err(too_large("amf0 string", length, MAX_STRING_BYTES));
        }
        let bytes = self.bytes(length)?;
        Ok(match String::from_utf8_lossy(bytes) {
            Cow::Borrowed(text) => text.to_owned(),
            Cow::Owned(text) => text,
        })
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (bytes, rest) =
            self.rest.split_at_checked(length).ok_or(Error::Truncated { what: WHAT })?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Error::Truncated { what: WHAT })?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn f64(&mut self) -> Result<f64, Error> {
        Ok(f64::from_be_bytes(self.array()?))
    }
}

/// Reads all values of `input`.
///
/// # Errors
/// As [`Reader::value`].
pub fn read_all(input: &[u8]) -> Result<Vec<Amf0>, Error> {
    let mut reader = Reader::new(input);
    let mut values = Vec::new();
    while !reader.is_empty() {
        values.push(reader.value()?);
    }
    Ok(values)
}

/// Appends `value` to `out`. What is within this module's limits reads back as it was; names over
/// 65,535 bytes, which the format cannot carry, are cut.
pub fn write(out: &mut Vec<u8>, value: &Amf0) {
    match value {
        Amf0::Number(number) => {
            out.push(marker::NUMBER);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Amf0::Boolean(value) => out.extend_from_slice(&[marker::BOOLEAN, u8::from(*value)]),
        Amf0::String(text) if text.len() <= usize::from(u16::MAX) => {
            out.push(marker::STRING);
            write_name(out, text);
        }
        Amf0::String(text) => write_long(out, marker::LONG_STRING, text),
        Amf0::Object(members) => {
            out.push(marker::OBJECT);
            write_members(out, members);
        }
        Amf0::Null => out.push(marker::NULL),
        Amf0::Undefined => out.push(marker::UNDEFINED),
        Amf0::Reference(index) => {
            out.push(marker::REFERENCE);
            out.extend_from_slice(&index.to_be_bytes());
        }
        Amf0::EcmaArray(members) => {
            out.push(marker::ECMA_ARRAY);
            out.extend_from_slice(&saturating_u32(members.len()).to_be_bytes());
            write_members(out, members);
        }
        Amf0::StrictArray(items) => {
            out.push(marker::STRICT_ARRAY);
            out.extend_from_slice(&saturating_u32(items.len()).to_be_bytes());
            items.iter().for_each(|item| write(out, item));
        }
        Amf0::Date { unix_ms, zone_min } => {
            out.push(marker::DATE);
            out.extend_from_slice(&unix_ms.to_be_bytes());
            out.extend_from_slice(&zone_min.to_be_bytes());
        }
        Amf0::Unsupported => out.push(marker::UNSUPPORTED),
        Amf0::Xml(text) => write_long(out, marker::XML, text),
        Amf0::TypedObject { class, members } => {
            out.push(marker::TYPED_OBJECT);
            write_name(out, class);
            write_members(out, members);
        }
    }
}

fn write_members(out: &mut Vec<u8>, members: &[(String, Amf0)]) {
    for (name, value) in members {
        write_name(out, name);
        write(out, value);
    }
    out.extend_from_slice(&[0, 0, marker::OBJECT_END]);
}

fn write_name(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let length = u16::try_from(end).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

fn write_long(out: &mut Vec<u8>, marker: u8, text: &str) {
    out.push(marker);
    out.extend_from_slice(&saturating_u32(text.len()).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn saturating_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn too_large(what: &'static str, found: usize, limit: usize) -> Error {
    Error::TooLarge { what, found: found as u64, limit: limit as u64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: &Amf0) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, value);
        out
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        let value = Amf0::Object(vec![
            ("a".into(), Amf0::Number(1.0)),
            ("b".into(), Amf0::Boolean(true)),
            ("c".into(), Amf0::from("x")),
        ]);
        let bytes = b"\x03\0\x01a\0\x3f\xf0\0\0\0\0\0\0\0\x01b\x01\x01\0\x01c\x02\0\x01x\0\0\x09";
        assert_eq!(written(&value), bytes);
        assert_eq!(read_all(bytes).unwrap(), [value]);
        let date = Amf0::Date { unix_ms: 1.0, zone_min: -60 };
        assert_eq!(written(&date), b"\x0b\x3f\xf0\0\0\0\0\0\0\xff\xc4");
        let typed = Amf0::TypedObject { class: "K".into(), members: vec![] };
        assert_eq!(written(&typed), b"\x10\0\x01K\0\0\x09");
        assert_eq!(read_all(b"\x0c\0\0\0\x02hi").unwrap(), [Amf0::from("hi")]);
        assert_eq!(read_all(b"\x0f\0\0\0\x02<>").unwrap(), [Amf0::Xml("<>".into())]);
    }

    #[test]
    fn the_count_of_an_ecma_array_is_a_hint() {
        for count in [0u8, 1, 7, 255] {
            let bytes = [b"\x08", &[count; 4][..], b"\0\x01a\x05\0\0\x09\x06"].concat();
            let array = Amf0::EcmaArray(vec![("a".into(), Amf0::Null)]);
            assert_eq!(read_all(&bytes).unwrap(), [array, Amf0::Undefined], "{count}");
        }
    }

    #[test]
    fn an_ecma_array_may_lack_its_end_at_the_end_of_the_input() {
        let array = Amf0::EcmaArray(vec![("a".into(), Amf0::Null)]);
        assert_eq!(read_all(b"\x08\0\0\0\x01\0\x01a\x05").unwrap(), [array]);
        let short = read_all(b"\x08\0\0\0\x02\0\x01a\x05").unwrap_err();
        assert_eq!(short, Error::Truncated { what: WHAT });
        let object = read_all(b"\x03\0\x01a\x05").unwrap_err();
        assert_eq!(object, Error::Truncated { what: WHAT });
    }

    #[test]
    fn text_that_is_not_utf8_is_read_with_replacements() {
        assert_eq!(read_all(b"\x02\0\x02a\xff").unwrap(), [Amf0::from("a\u{fffd}")]);
    }

    #[test]
    fn members_and_items_are_found() {
        let value = Amf0::EcmaArray(vec![
            ("list".into(), Amf0::StrictArray(vec![Amf0::from("a"), Amf0::from(2.0)])),
            ("on".into(), Amf0::Boolean(true)),
        ]);
        let items: Vec<_> = value.get("list").unwrap().items().cloned().collect();
        assert_eq!(items, [Amf0::from("a"), Amf0::from(2.0)]);
        assert_eq!(value.items().count(), 2);
        assert_eq!(value.get("on").and_then(Amf0::as_bool), Some(true));
        assert_eq!(value.get("off"), None);
        assert_eq!(Amf0::Null.get("on"), None);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| {
            let mut bytes = b"\x03\0\x01a".repeat(levels - 1);
            bytes.push(marker::NULL);
            bytes.extend(b"\0\0\x09".repeat(levels - 1));
            bytes
        };
        assert!(read_all(&nested(MAX_DEPTH)).is_ok());
        for levels in [MAX_DEPTH + 1, 100_000] {
            let error = read_all(&nested(levels)).unwrap_err();
            assert_eq!(error, too_large("amf0 nesting depth", MAX_DEPTH + 1, MAX_DEPTH));
        }
        let arrays = b"\x0a\0\0\0\x01".repeat(100_000);
        assert_eq!(read_all(&arrays).unwrap_err().reason(), "too_large");
    }

    #[test]
    fn counts_and_strings_are_bounded() {
        assert!(read_all(&[marker::NULL; MAX_VALUES]).is_ok());
        let error = read_all(&[marker::NULL; MAX_VALUES + 1]).unwrap_err();
        assert_eq!(error, too_large("amf0 values", MAX_VALUES + 1, MAX_VALUES));
        let error = read_all(b"\x0a\xff\xff\xff\xff").unwrap_err();
        assert_eq!(error, too_large("amf0 array", u32::MAX as usize, MAX_VALUES));
        let error = read_all(b"\x0c\xff\xff\xff\xff").unwrap_err();
        assert_eq!(error, too_large("amf0 string", u32::MAX as usize, MAX_STRING_BYTES));
        let members = [b"\x08\xff\xff\xff\xff".to_vec(), b"\0\x01a\x05".repeat(2000)].concat();
        assert_eq!(read_all(&members).unwrap_err().reason(), "too_large");
    }

    #[test]
    fn what_is_not_amf0_is_named() {
        let error = |bytes: &[u8]| read_all(bytes).unwrap_err().to_string();
        assert_eq!(error(b"\x11\x04\x01"), "amf0: AMF3 (avmplus) is not supported");
        assert_eq!(error(b"\x04"), "amf0: movie clip is not supported");
        assert_eq!(error(b"\x0e"), "amf0: record set is not supported");
        assert_eq!(error(b"\x09"), "amf0: object end outside an object");
        assert_eq!(error(b"\x42"), "amf0: unknown type marker 0x42");
        assert_eq!(error(b"\0\0\0"), "amf0: truncated");
    }

    #[test]
    fn an_empty_member_name_is_a_name() {
        let value = Amf0::Object(vec![(String::new(), Amf0::Null)]);
        assert_eq!(read_all(&written(&value)).unwrap(), [value]);
    }

    #[test]
    fn the_longest_names_and_texts_are_written_whole() {
        let long = "é".repeat(40_000);
        let mut out = Vec::new();
        write(&mut out, &Amf0::from(long.as_str()));
        assert_eq!(out[..5], [marker::LONG_STRING, 0, 1, 0x38, 0x80]);
        assert_eq!(out.len(), 5 + long.len());
        write_name(&mut out, &long);
        assert_eq!(out[5 + long.len()..][..2], [0xff, 0xfe], "cut at a character");
    }

    fn any_value() -> impl Strategy<Value = Amf0> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(|number| Amf0::Number(f64::from(number) / 8.0)),
            any::<bool>().prop_map(Amf0::Boolean),
            ".{0,20}".prop_map(Amf0::String),
            Just(Amf0::Null),
            Just(Amf0::Undefined),
            Just(Amf0::Unsupported),
            any::<u16>().prop_map(Amf0::Reference),
            ".{0,20}".prop_map(Amf0::Xml),
            (any::<i32>(), any::<i16>()).prop_map(|(seconds, zone_min)| Amf0::Date {
                unix_ms: f64::from(seconds) * 1000.0,
                zone_min
            }),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            let members = prop::collection::vec((".{0,8}", inner.clone()), 0..6);
            prop_oneof![
                members.clone().prop_map(Amf0::Object),
                members.clone().prop_map(Amf0::EcmaArray),
                prop::collection::vec(inner, 0..6).prop_map(Amf0::StrictArray),
                (".{0,8}", members)
                    .prop_map(|(class, members)| Amf0::TypedObject { class, members }),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_reads_back(values in prop::collection::vec(any_value(), 0..4)) {
            let bytes: Vec<u8> = values.iter().flat_map(written).collect();
            prop_assert_eq!(read_all(&bytes).unwrap(), values);
        }

        #[test]
        fn a_cut_value_errs(value in any_value(), cut in any::<prop::sample::Index>()) {
            let bytes = written(&value);
            let cut = cut.index(bytes.len());
            // Only an associative array may end early, see `Reader::members`.
            match read_all(&bytes[..cut]) {
                Ok(values) => prop_assert!(cut == 0 || values == [value]),
                Err(error) => prop_assert_eq!(error.reason(), "truncated"),
            }
        }

        #[test]
        fn any_bytes_read_or_err(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(values) = read_all(&bytes) {
                let again: Vec<u8> = values.iter().flat_map(written).collect();
                prop_assert_eq!(read_all(&again).unwrap().len(), values.len());
            }
        }
    }
}
