//! The error of every parser and renderer of this crate.

/// Why bytes could not be read as the format they claim to be, or media could not be rendered.
///
/// The text names what was wrong and where; it is safe to log (it never contains payload bytes).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input ended before the field `what` was complete.
    #[error("{what}: truncated")]
    Truncated {
        /// The structure or field being read.
        what: &'static str,
    },
    /// A field holds a value the format does not allow.
    #[error("{what}: {why}")]
    Invalid {
        /// The structure or field being read.
        what: &'static str,
        /// What was found and what is allowed.
        why: String,
    },
    /// A size, count or depth is over the named limit.
    #[error("{what}: {found} is over the limit of {limit}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The value found.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes are well formed but use a codec or feature that is not carried.
    #[error("{what}: {name} is not supported")]
    Unsupported {
        /// The structure or field being read.
        what: &'static str,
        /// The codec or feature.
        name: String,
    },
}

impl Error {
    /// A closed-set label for metrics: why the peer was refused.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Invalid { .. } => "invalid",
            Self::TooLarge { .. } => "too_large",
            Self::Unsupported { .. } => "unsupported",
        }
    }

    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { what, why: why.into() }
    }
}
