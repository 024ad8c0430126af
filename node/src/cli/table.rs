//! Plain tables for people.

/// Lays `rows` out in columns under `head`; the last column is not padded.
#[must_use]
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|text| text.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head.map(str::to_owned)).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A cell for what may be absent.
#[must_use]
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows =
            [["live/a".to_owned(), "1".to_owned()], ["live/bcd".to_owned(), or_dash(None::<u8>)]];
        assert_eq!(
            table(["ROOM", "VIEWERS"], &rows),
            "ROOM      VIEWERS\nlive/a    1\nlive/bcd  -\n"
        );
    }
}
