//! Query parameters, as far as viewers use them.
//!
//! In: the raw query of a request. Out: borrowed values, still percent-encoded: everything read here
//! is made of characters that need no encoding.

/// The parameters of a request. Of several with one name the first counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn new(raw: Option<&'a str>) -> Self {
        Self(raw.unwrap_or_default())
    }

    /// The value of `name`; empty when it stands there without one.
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }
}

/// A number as our own URLs spell it: no sign, no leading zero, so that a resource has one name.
pub(crate) fn canonical(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_name() {
        let query = Query::new(Some("token=a.b&x=&token=c&gop"));
        assert_eq!(query.get("token"), Some("a.b"));
        assert_eq!(query.get("x"), Some(""));
        assert_eq!(query.get("gop"), Some(""));
        assert_eq!(query.get("oken"), None);
        assert_eq!(Query::new(None).get("x"), None);
    }

    #[test]
    fn canonical_numbers_have_one_spelling() {
        assert_eq!(canonical("0"), Some(0));
        assert_eq!(canonical("10"), Some(10));
        for bad in ["99999999999999999999", "", "00", "01", "+1", "-1", " 1", "1 "] {
            assert_eq!(canonical(bad), None, "{bad:?}");
        }
    }
}
