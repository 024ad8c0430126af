//! Words that may not be said: a list of phrases, found whatever they are dressed up as.
//!
//! In: the lines of a list, then texts. Out: whether a text has one of them. Both are folded the same
//! way: compatibility forms (NFKC), confusable letters (UTS #39 skeletons), case, marks and invisible
//! characters do not matter. A line that begins with `=` is found only as a whole word.

use aho_corasick::AhoCorasick;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_security::skeleton;

/// Phrases of a list; further lines are left out and counted.
pub const MAX_PHRASES: usize = 100_000;
/// The longest phrase, in bytes; longer lines are left out and counted.
pub const MAX_PHRASE_BYTES: usize = 256;

/// A list in use.
#[derive(Debug, Default)]
pub struct Filter {
    phrases: Option<AhoCorasick>,
    /// Of each phrase: whether it is found only as a whole word.
    whole: Vec<bool>,
    left_out: usize,
}

impl Filter {
    /// Reads a list: a phrase a line; empty lines and those that begin with `#` mean nothing.
    #[must_use]
    pub fn new(list: &str) -> Self {
        let (mut phrases, mut whole, mut left_out) = (Vec::new(), Vec::new(), 0);
        for line in list.lines().map(str::trim) {
            let (phrase, is_whole) = match line.strip_prefix('=') {
                Some(phrase) => (phrase.trim(), true),
                None => (line, false),
            };
            if phrase.is_empty() || line.starts_with('#') {
                continue;
            }
            let folded = fold(phrase);
            if folded.is_empty() || phrase.len() > MAX_PHRASE_BYTES || phrases.len() == MAX_PHRASES
            {
                left_out += 1;
                continue;
            }
            phrases.push(folded);
            whole.push(is_whole);
        }
        match AhoCorasick::new(&phrases) {
            _ if phrases.is_empty() => Self { left_out, ..Self::default() },
            Ok(found) => Self { phrases: Some(found), whole, left_out },
            // Only a list beyond the bounds above could be too large for it.
            Err(_) => Self { left_out: left_out + phrases.len(), ..Self::default() },
        }
    }

    /// Whether the text has one of the phrases.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some(phrases) = &self.phrases else { return false };
        let text = fold(text);
        phrases.find_overlapping_iter(&text).any(|found| {
            let is_whole = self.whole.get(found.pattern().as_usize()).copied().unwrap_or_default();
            !is_whole || stands_alone(&text, found.start(), found.end())
        })
    }

    /// Phrases in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.whole.len()
    }

    /// Whether nothing is filtered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }

    /// Lines that were too long, too many, or nothing but marks.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

/// A text as it is compared.
fn fold(text: &str) -> String {
    let plain: String =
        text.nfkc().filter(|c| !is_invisible(*c)).flat_map(char::to_lowercase).collect();
    let alike: String = skeleton(&plain).collect();
    let marks = |c: &char| !is_combining_mark(*c);
    // Skeletons have capitals in them, such as the O that zeros become.
    alike.nfkd().filter(marks).flat_map(char::to_lowercase).collect()
}

/// Characters that are drawn as nothing (Unicode, Default_Ignorable_Code_Point, those in use).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{e0000}'..='\u{e0fff}')
}

fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let before = text.get(..start).and_then(|t| t.chars().next_back());
    let after = text.get(end..).and_then(|t| t.chars().next());
    !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_in_disguise() {
        let filter = Filter::new("# list\n\nbadword\n坏词\n= ass\n");
        assert_eq!((filter.len(), filter.left_out()), (3, 0));
        for text in [
            "a badword here",
            "BADWORD",
            "b\u{200b}ad\u{ad}word",
            "ｂａｄｗｏｒｄ",
            "b\u{e1}dw\u{f6}rd",
            "bаdwоrd", // Cyrillic a and o
            "𝐛𝐚𝐝𝐰𝐨𝐫𝐝",
            "这是坏词吗",
            "an ass!",
            "ass",
        ] {
            assert!(filter.matches(text), "{text}");
        }
        for text in ["", "bad word", "class", "passing", "好词"] {
            assert!(!filter.matches(text), "{text}");
        }
    }

    #[test]
    fn a_list_is_bounded_and_an_empty_one_finds_nothing() {
        let filter = Filter::new(&format!("{}\n\u{200b}\n", "x".repeat(MAX_PHRASE_BYTES + 1)));
        assert_eq!((filter.is_empty(), filter.left_out()), (true, 2));
        assert!(!filter.matches("x"));
        assert!(!Filter::default().matches("anything"));
    }
}
