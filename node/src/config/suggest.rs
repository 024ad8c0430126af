//! The nearest right name to a wrong one. Pure.

/// The known name that is fewest edits away from `wrong`, if it is near enough to be meant.
///
/// For a key (`section.key`), the right key in a wrong section counts as near too.
#[must_use]
pub fn nearest(wrong: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let limit = 2 + wrong.len() / 6;
    known
        .map(|name| {
            let moved = name.contains('.') && last(name) == last(wrong);
            let edits = edits(wrong, name);
            (if moved { edits.min(limit) } else { edits }, edits, name)
        })
        .filter(|(rank, ..)| *rank <= limit)
        .min()
        .map(|(.., name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours between two names (optimal string
/// alignment).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut least =
                    (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(wrong: &str) -> Option<&'static str> {
        nearest(
            wrong,
            ["hls.part", "hls.segment", "rtmp.listen", "admin.listen", "room.open_gifts"]
                .into_iter(),
        )
    }

    #[test]
    fn slips_are_recognised() {
        assert_eq!(meant("hls.prat"), Some("hls.part"));
        assert_eq!(meant("hls.segmant"), Some("hls.segment"));
        assert_eq!(meant("hls.parts"), Some("hls.part"));
        assert_eq!(meant("room.opengifts"), Some("room.open_gifts"));
    }

    #[test]
    fn the_right_key_in_a_wrong_section_is_recognised() {
        assert_eq!(meant("auth.open_gifts"), Some("room.open_gifts"));
        assert_eq!(meant("rtpm.listen"), Some("rtmp.listen"));
    }

    #[test]
    fn nothing_near_means_nothing() {
        assert_eq!(meant("color"), None);
        assert_eq!(meant("video.bitrate"), None);
    }

    #[test]
    fn a_swap_is_one_edit() {
        assert_eq!(edits("prat", "part"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
