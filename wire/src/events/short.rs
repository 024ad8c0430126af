//! Text with a bound: what a peer says can be stored, or cannot be said.
//!
//! In: text of any origin. Out: at most so many bytes of UTF-8 without NUL, which PostgreSQL cannot
//! hold. Does not judge what the text says.

use std::fmt;

use serde::{Deserialize, Serialize};

/// At most `MAX_BYTES` bytes of text without NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Short<const MAX_BYTES: usize>(Box<str>);

/// Why text is not a [`Short`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShortError {
    /// It is longer.
    #[error("{found} bytes of text, over the limit of {limit}")]
    TooLong {
        /// Its bytes.
        found: usize,
        /// The most allowed.
        limit: usize,
    },
    /// It has a NUL.
    #[error("text with a NUL character")]
    Nul,
}

impl<const MAX_BYTES: usize> Short<MAX_BYTES> {
    /// Takes text that fits.
    ///
    /// # Errors
    /// [`ShortError`] says why it does not.
    pub fn new(text: impl Into<String>) -> Result<Self, ShortError> {
        let text: String = text.into();
        if text.len() > MAX_BYTES {
            return Err(ShortError::TooLong { found: text.len(), limit: MAX_BYTES });
        }
        if text.contains('\0') {
            return Err(ShortError::Nul);
        }
        Ok(Self(text.into()))
    }

    /// Takes as much of the text as fits, without its NULs: for what may be shortened.
    #[must_use]
    pub fn clip(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(MAX_BYTES));
        for character in text.chars().filter(|c| *c != '\0') {
            if kept.len() + character.len_utf8() > MAX_BYTES {
                break;
            }
            kept.push(character);
        }
        Self(kept.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const MAX_BYTES: usize> TryFrom<String> for Short<MAX_BYTES> {
    type Error = ShortError;

    fn try_from(text: String) -> Result<Self, ShortError> {
        Self::new(text)
    }
}

impl<const MAX_BYTES: usize> From<Short<MAX_BYTES>> for String {
    fn from(short: Short<MAX_BYTES>) -> Self {
        short.0.into()
    }
}

impl<const MAX_BYTES: usize> fmt::Display for Short<MAX_BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX_BYTES: usize> fmt::Debug for Short<MAX_BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_fits_or_is_refused() {
        assert_eq!(Short::<4>::new("abcd").unwrap().as_str(), "abcd");
        let error = Short::<4>::new("abcde").unwrap_err();
        assert_eq!(error.to_string(), "5 bytes of text, over the limit of 4");
        assert_eq!(Short::<4>::new("a\0"), Err(ShortError::Nul));
        assert_eq!(Short::<4>::clip("ab\0ééé").as_str(), "abé", "whole characters only");
    }

    proptest! {
        #[test]
        fn clipped_text_is_legal(text in "\\PC*|[\\x00-\\x7f]*") {
            let short = Short::<7>::clip(&text);
            prop_assert_eq!(Short::<7>::new(short.as_str()), Ok(short));
        }
    }
}
