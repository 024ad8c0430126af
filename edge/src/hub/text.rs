//! What a member may write: checked before it goes anywhere, and put into one form.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use wire::room::Code;

/// Code points of a message.
pub(crate) const MAX_TEXT: usize = 200;
/// Code points of a name.
pub(crate) const MAX_NAME: usize = 24;
/// Code points of a pinned text.
const MAX_PINNED: usize = 500;
/// Marks on one letter.
const MAX_MARKS: usize = 8;

/// A message as it is shown: composed (NFC), without what changes the text around it.
///
/// # Errors
/// The code to refuse it with.
pub(crate) fn message(text: &str) -> Result<String, Code> {
    let text: String = text.trim().nfc().collect();
    if text.chars().count() > MAX_TEXT {
        return Err(Code::TooLong);
    }
    if text.is_empty() || text.chars().any(is_forbidden) || marks(&text) > MAX_MARKS {
        return Err(Code::BadRequest);
    }
    Ok(text)
}

/// A name as it is shown; none if it cannot be.
pub(crate) fn name(text: &str) -> Option<String> {
    let text: String = text.trim().nfc().collect();
    let good = !text.is_empty()
        && text.chars().count() <= MAX_NAME
        && !text.chars().any(is_forbidden)
        && marks(&text) <= 2;
    good.then_some(text)
}

/// A pinned text as it is shown, of up to [`MAX_PINNED`] code points; none if it cannot be. Empty unpins.
pub(crate) fn pinned(text: &str) -> Option<String> {
    let text: String = text.trim().nfc().collect();
    let good = text.chars().count() <= MAX_PINNED
        && !text.chars().any(is_forbidden)
        && marks(&text) <= MAX_MARKS;
    good.then_some(text)
}

/// Controls, and what turns the direction of other people's text around.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Most marks in a row.
fn marks(text: &str) -> usize {
    let (mut most, mut run) = (0, 0);
    for c in text.chars() {
        run = if is_combining_mark(c) { run + 1 } else { 0 };
        most = most.max(run);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_composed_and_bounded() {
        assert_eq!(message("  he\u{301}llo "), Ok("h\u{e9}llo".into()));
        assert_eq!(message(&"中".repeat(200)), Ok("中".repeat(200)));
        assert_eq!(message(&"中".repeat(201)), Err(Code::TooLong));
        for bad in ["", "  ", "a\nb", "a\u{202e}b", "\u{0}", &format!("z{}", "\u{335}".repeat(9))] {
            assert_eq!(message(bad), Err(Code::BadRequest), "{bad:?}");
        }
        assert_eq!(message("<b>👨‍👩‍👧</b>"), Ok("<b>👨‍👩‍👧</b>".into()), "text is only ever text");
        assert_eq!(name(" Mei "), Some("Mei".into()));
        assert!(name(&"x".repeat(25)).is_none() && name("a\u{7f}").is_none());
    }
}
