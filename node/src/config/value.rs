//! Values as people write them: durations and sizes with units, addresses, lists.
//!
//! In: a raw TOML value, or the text of an environment variable or `--set`. Out: a typed [`Value`]
//! that fits its key's [`Kind`], or a sentence that says how to write it. Pure: looks at no file
//! and resolves no host name.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text; empty means unset.
    Text,
    /// Text that is never shown again: logs, diffs and errors say `(hidden)`.
    Secret,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number from `min` to `max`.
    Integer {
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// A duration with its unit, from `min_ms` to `max_ms` milliseconds.
    Duration {
        /// The least allowed, in milliseconds.
        min_ms: u64,
        /// The most allowed, in milliseconds.
        max_ms: u64,
    },
    /// A size with its unit, at least `min` bytes.
    Bytes {
        /// The least allowed, in bytes.
        min: u64,
    },
    /// `address:port` to listen on; port 0 picks a free one.
    Listen,
    /// As [`Kind::Listen`], or `off`.
    ListenOrOff,
    /// `host:port` that others connect to; empty means unset.
    HostPort,
    /// A file or folder; relative ones start at the file's folder; empty means unset.
    Path,
    /// A list of words: a TOML array, or separated by commas in the environment and `--set`.
    List,
}

/// A value before it is known what its key takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// Text that may stand for anything: a default, an environment variable or `--set`.
    Loose(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Flag(bool),
    /// A TOML array of strings.
    List(Vec<String>),
    /// A TOML value no key takes; the name of its type.
    Other(&'static str),
}

/// A value that fits its key.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of [`Kind::Text`], [`Kind::Secret`], [`Kind::OneOf`] and [`Kind::HostPort`].
    Text(String),
    /// Of [`Kind::Flag`].
    Flag(bool),
    /// Of [`Kind::Integer`], and of [`Kind::Bytes`] in bytes.
    Integer(u64),
    /// Of [`Kind::Duration`].
    Duration(Duration),
    /// Of [`Kind::Listen`] and [`Kind::ListenOrOff`]; `None` is off.
    Listen(Option<SocketAddr>),
    /// Of [`Kind::Path`]; `None` is unset.
    Path(Option<PathBuf>),
    /// Of [`Kind::List`].
    List(Vec<String>),
}

/// Reads `raw` as what `kind` takes; relative paths are joined to `base`.
///
/// # Errors
/// A sentence that says how the value must be written.
pub fn read(kind: Kind, raw: &Raw, base: &Path) -> Result<Value, String> {
    match kind {
        Kind::Text | Kind::Secret => text(raw).map(Value::Text),
        Kind::OneOf(words) => {
            let found = text(raw)?;
            if words.contains(&found.as_str()) {
                return Ok(Value::Text(found));
            }
            Err(format!("is {found:?}; it must be one of {}", words.join(", ")))
        }
        Kind::Flag => flag(raw).map(Value::Flag),
        Kind::Integer { min, max } => integer(raw, min, max).map(Value::Integer),
        Kind::Duration { min_ms, max_ms } => {
            let found = with_unit(raw, "a duration", "200ms", "10s").and_then(|t| duration(&t))?;
            let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
            if found < min || found > max {
                return Err(format!("must be from {} to {}", show(min), show(max)));
            }
            Ok(Value::Duration(found))
        }
        Kind::Bytes { min } => {
            let found = with_unit(raw, "a size", "64MiB", "512KiB").and_then(|t| size(&t))?;
            if found < min {
                return Err(format!("must be at least {min} bytes"));
            }
            Ok(Value::Integer(found))
        }
        Kind::Listen => listen(&text(raw)?).map(|a| Value::Listen(Some(a))),
        Kind::ListenOrOff => match text(raw)?.as_str() {
            "off" => Ok(Value::Listen(None)),
            address => listen(address)
                .map(|a| Value::Listen(Some(a)))
                .map_err(|e| format!("{e}, or \"off\"")),
        },
        Kind::HostPort => {
            let found = text(raw)?;
            if !found.is_empty() {
                host_port(&found)?;
            }
            Ok(Value::Text(found))
        }
        Kind::Path => {
            let found = text(raw)?;
            Ok(Value::Path((!found.is_empty()).then(|| base.join(found))))
        }
        Kind::List => list(raw).map(Value::List),
    }
}

/// Splits `host:port`, the host an address (IPv6 in brackets) or a name.
///
/// # Errors
/// A sentence that says what is missing.
pub fn host_port(text: &str) -> Result<(&str, u16), String> {
    const FORM: &str = "it must be host:port, as in 10.0.0.1:7400";
    let (host, port) = text.rsplit_once(':').ok_or(format!("is {text:?}; {FORM}"))?;
    let port = port.parse().map_err(|_| format!("has the port {port:?}; {FORM}"))?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if bare.is_empty() || (bare.contains(':') && bare == host) {
        return Err(format!("is {text:?}; {FORM}"));
    }
    Ok((bare, port))
}

/// Writes a duration as a configuration file would.
#[must_use]
pub fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => "0s".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

fn text(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Loose(text) | Raw::Text(text) => Ok(text.clone()),
        other => Err(format!("must be a string, not {}", type_name(other))),
    }
}

fn flag(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Flag(flag) => Ok(*flag),
        Raw::Loose(text) if text == "true" => Ok(true),
        Raw::Loose(text) if text == "false" => Ok(false),
        Raw::Loose(text) => Err(format!("is {text:?}; it must be true or false")),
        other => Err(format!("must be true or false, without quotes, not {}", type_name(other))),
    }
}

fn integer(raw: &Raw, min: u64, max: u64) -> Result<u64, String> {
    let found = match raw {
        Raw::Integer(number) => u64::try_from(*number).ok(),
        Raw::Loose(text) => text.parse().ok(),
        other => return Err(format!("must be a number, not {}", type_name(other))),
    };
    match found {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ if max == u64::MAX => Err(format!("must be a whole number of at least {min}")),
        _ => Err(format!("must be a whole number from {min} to {max}")),
    }
}

fn list(raw: &Raw) -> Result<Vec<String>, String> {
    match raw {
        Raw::List(items) => Ok(items.clone()),
        Raw::Loose(text) => Ok(text
            .trim()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .split(',')
            .map(|item| item.trim().trim_matches('"').to_owned())
            .filter(|item| !item.is_empty())
            .collect()),
        other => Err(format!("must be an array of strings, not {}", type_name(other))),
    }
}

fn with_unit(raw: &Raw, what: &str, one: &str, two: &str) -> Result<String, String> {
    match raw {
        Raw::Loose(text) | Raw::Text(text) => Ok(text.clone()),
        Raw::Integer(n) => {
            Err(format!("is {n} without a unit; write {what} as \"{one}\" or \"{two}\""))
        }
        other => Err(format!("must be {what} such as \"{one}\", not {}", type_name(other))),
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write a duration as 200ms, 10s, 5m or 1h";
    let (number, unit) = split_unit(text).ok_or(format!("is {text:?}; {FORM}"))?;
    let unit_s = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("is {text:?}; {FORM}")),
    };
    Duration::try_from_secs_f64(number * unit_s)
        .map(|d| Duration::from_micros((d.as_nanos() as u64).div_ceil(1000)))
        .map_err(|_| format!("is {text:?}, which is too long; {FORM}"))
}

fn size(text: &str) -> Result<u64, String> {
    const FORM: &str = "write a size as 512KiB, 64MiB, 2GiB or 10MB";
    let (number, unit) = split_unit(text).ok_or(format!("is {text:?}; {FORM}"))?;
    let unit_bytes: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("is {text:?}; {FORM}")),
    };
    Ok((number * unit_bytes as f64) as u64)
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("is {text:?}; it must be address:port, as in 0.0.0.0:1935 or [::]:1935")
    })
}

fn type_name(raw: &Raw) -> &'static str {
    match raw {
        Raw::Loose(_) | Raw::Text(_) => "a string",
        Raw::Integer(_) => "a number",
        Raw::Flag(_) => "a boolean",
        Raw::List(_) => "an array",
        Raw::Other(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loose(kind: Kind, text: &str) -> Result<Value, String> {
        read(kind, &Raw::Loose(text.into()), Path::new("/base"))
    }

    const DURATION: Kind = Kind::Duration { min_ms: 0, max_ms: u64::MAX };

    #[test]
    fn durations_need_their_unit() {
        for (text, ms) in
            [("200ms", 200), ("10s", 10_000), ("1.5s", 1500), ("2 m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(loose(DURATION, text), Ok(Value::Duration(Duration::from_millis(ms))));
        }
        for text in ["10", "", "ms", "s10", "1 fortnight", "-1s", "1e9h"] {
            assert!(loose(DURATION, text).is_err(), "{text}");
        }
        let error = read(DURATION, &Raw::Integer(200), Path::new("")).unwrap_err();
        assert!(error.contains("200 without a unit") && error.contains("200ms"), "{error}");
    }

    #[test]
    fn durations_keep_their_range() {
        let kind = Kind::Duration { min_ms: 50, max_ms: 2000 };
        assert_eq!(loose(kind, "3s").unwrap_err(), "must be from 50ms to 2s");
        assert!(loose(kind, "50ms").is_ok());
    }

    #[test]
    fn sizes_are_decimal_or_binary() {
        let kind = Kind::Bytes { min: 1 };
        assert_eq!(loose(kind, "64MiB"), Ok(Value::Integer(64 << 20)));
        assert_eq!(loose(kind, "10MB"), Ok(Value::Integer(10_000_000)));
        assert!(loose(kind, "0B").is_err());
        assert!(loose(kind, "64").is_err());
    }

    #[test]
    fn lists_come_from_arrays_and_commas() {
        let words = || vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(loose(Kind::List, "a, b"), Ok(Value::List(words())));
        assert_eq!(loose(Kind::List, "[\"a\",\"b\"]"), Ok(Value::List(words())));
        assert_eq!(read(Kind::List, &Raw::List(words()), Path::new("")), Ok(Value::List(words())));
        assert_eq!(loose(Kind::List, ""), Ok(Value::List(Vec::new())));
    }

    #[test]
    fn listeners_may_be_off_where_the_key_says_so() {
        assert_eq!(loose(Kind::ListenOrOff, "off"), Ok(Value::Listen(None)));
        assert!(loose(Kind::Listen, "off").is_err());
        assert!(loose(Kind::ListenOrOff, "8080").unwrap_err().contains("\"off\""));
        assert!(loose(Kind::Listen, "[::1]:0").is_ok());
    }

    #[test]
    fn paths_start_at_their_base() {
        assert_eq!(
            loose(Kind::Path, "certs/ca.pem"),
            Ok(Value::Path(Some(PathBuf::from("/base/certs/ca.pem"))))
        );
        assert_eq!(loose(Kind::Path, "/etc/x"), Ok(Value::Path(Some(PathBuf::from("/etc/x")))));
        assert_eq!(loose(Kind::Path, ""), Ok(Value::Path(None)));
    }

    #[test]
    fn hosts_have_ports() {
        assert_eq!(host_port("o1.example.org:7400"), Ok(("o1.example.org", 7400)));
        assert_eq!(host_port("[::1]:7400"), Ok(("::1", 7400)));
        for bad in ["o1", ":7400", "::1:7400", "o1:", "o1:70000"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_types_say_what_they_are() {
        let number = Raw::Integer(1);
        assert!(read(Kind::Flag, &number, Path::new("")).unwrap_err().contains("not a number"));
        assert!(read(Kind::Text, &number, Path::new("")).unwrap_err().contains("must be a string"));
        let quoted = Raw::Text("true".into());
        assert!(read(Kind::Flag, &quoted, Path::new("")).unwrap_err().contains("without quotes"));
    }
}
