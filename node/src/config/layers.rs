//! Lays defaults, file, environment and `--set` over each other and remembers where each value is
//! from.
//!
//! In: text and names. Out: [`Settings`], one typed value per key with its [`Place`], or every
//! [`Problem`] found, not only the first. Does not know what keys mean together; that is
//! [`super::Config`].

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{KEYS, position},
    suggest::nearest,
    value::{Raw, Value, read},
};

/// Environment variables of the configuration start with this.
pub const ENV_PREFIX: &str = "TIDEWATER_";
/// What stands for the dot of a key in an environment variable. Variables without it are not
/// configuration (Kubernetes makes `TIDEWATER_SERVICE_HOST` for a service of that name).
pub const ENV_DOT: &str = "__";

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Built in.
    Default,
    /// A line of the configuration file, from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A command-line argument, as it was written up to its value.
    Argument(String),
}

/// Something wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// What is wrong and, where it helps, what to write instead.
    pub what: String,
}

/// Everything wrong with the configuration, in the order of the layers. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

/// One typed value for every key.
#[derive(Clone)]
pub struct Settings(Vec<(Value, Place)>);

/// The layers laid so far.
pub struct Layers {
    raw: Vec<(Raw, Place)>,
    problems: Vec<Problem>,
    working_dir: PathBuf,
}

impl Layers {
    /// The built-in defaults, with `overlay` on top; `working_dir` is where relative paths of the
    /// environment and the command line start.
    #[must_use]
    pub fn new(overlay: &[(&str, &str)], working_dir: &Path) -> Self {
        let default = |name: &str, default: &str| {
            let text = overlay.iter().find(|(key, _)| *key == name).map_or(default, |(_, v)| v);
            (Raw::Loose(text.to_owned()), Place::Default)
        };
        Self {
            raw: KEYS.iter().map(|key| default(key.name, key.default)).collect(),
            problems: Vec::new(),
            working_dir: working_dir.to_owned(),
        }
    }

    /// Lays a configuration file's `text` on top; `path` is what errors call it.
    pub fn file(&mut self, path: &Path, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let lines = Lines { path, text };
        for error in errors {
            let place = lines.place(error.span().unwrap_or(0..0));
            self.problem(place, error.message().to_owned());
        }
        self.table(&lines, "", table.get_ref());
    }

    /// Lays the `TIDEWATER_SECTION__KEY` variables among `variables` on top.
    pub fn env(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (variable, text) in variables {
            let Some(rest) = variable.strip_prefix(ENV_PREFIX) else { continue };
            if !rest.contains(ENV_DOT) {
                continue;
            }
            let name = rest.replace(ENV_DOT, ".").to_ascii_lowercase();
            self.lay(&name, Raw::Loose(text), Place::Env(variable));
        }
    }

    /// Lays one `section.key=value` on top; `argument` is what errors call it.
    pub fn set(&mut self, name: &str, text: &str, argument: &str) {
        self.lay(name, Raw::Loose(text.to_owned()), Place::Argument(argument.to_owned()));
    }

    /// Where the value of a key is from so far.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<&Place> {
        position(name).map(|at| &self.raw[at].1)
    }

    /// Notes a problem found by the caller.
    pub fn problem(&mut self, place: Place, what: String) {
        self.problems.push(Problem { place, what });
    }

    /// Reads every value as what its key takes.
    ///
    /// # Errors
    /// Everything that is wrong with any layer.
    pub fn finish(mut self) -> Result<Settings, Problems> {
        let mut values = Vec::with_capacity(KEYS.len());
        for (key, (raw, place)) in KEYS.iter().zip(self.raw) {
            let base = match &place {
                Place::File { path, .. } => path.parent().unwrap_or(Path::new("")),
                _ => &self.working_dir,
            };
            match read(key.kind, &raw, base) {
                Ok(value) => values.push((value, place)),
                Err(why) => {
                    self.problems.push(Problem { place, what: format!("{} {why}", key.name) });
                }
            }
        }
        if self.problems.is_empty() { Ok(Settings(values)) } else { Err(Problems(self.problems)) }
    }

    fn table(&mut self, lines: &Lines<'_>, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            let is_section = KEYS.iter().any(|k| k.name.starts_with(&format!("{name}.")));
            match value.get_ref() {
                DeValue::Table(inner) if is_section => {
                    self.table(lines, &format!("{name}."), inner);
                }
                DeValue::Table(_) if position(&name).is_none() => {
                    let what = unknown("section", &name, sections());
                    self.problem(lines.place(key.span()), what);
                }
                _ => self.lay(&name, raw(value), lines.place(key.span())),
            }
        }
    }

    fn lay(&mut self, name: &str, raw: Raw, place: Place) {
        match position(name) {
            Some(at) => self.raw[at] = (raw, place),
            None => {
                let what = unknown("key", name, KEYS.iter().map(|key| key.name));
                self.problem(place, what);
            }
        }
    }
}

impl Settings {
    /// The value of a key and where it is from.
    ///
    /// # Panics
    /// If the key is not in [`KEYS`]: a mistake in this crate, found by its tests.
    #[must_use]
    pub fn get(&self, name: &str) -> (&Value, &Place) {
        let at = position(name).expect("only keys of the table are asked for");
        (&self.0[at].0, &self.0[at].1)
    }

    /// These, with the values at `positions` taken from `other`.
    #[must_use]
    pub fn with(&self, other: &Self, positions: impl Iterator<Item = usize>) -> Self {
        let mut settings = self.clone();
        for at in positions {
            settings.0[at] = other.0[at].clone();
        }
        settings
    }

    /// The positions in [`KEYS`] of the keys whose values differ.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        (0..KEYS.len()).filter(|at| self.0[*at].0 != other.0[*at].0)
    }
}

/// The file being read, for turning byte offsets into lines.
struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Lines<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Place::File { path: self.path.to_owned(), line }
    }
}

fn raw(value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("a number out of range"), Raw::Integer),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map_or(Raw::Other("an array of other things"), Raw::List),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a section"),
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(|key| key.name.rsplit_once('.')).map(|(section, _)| section)
}

fn unknown(what: &str, name: &str, known: impl Iterator<Item = &'static str>) -> String {
    match nearest(name, known) {
        Some(right) => format!("unknown {what} {name}; did you mean {right}?"),
        None => format!("unknown {what} {name}"),
    }
}

impl fmt::Debug for Settings {
    /// Without the values: some of them are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(variable) => f.write_str(variable),
            Self::Argument(argument) => f.write_str(argument),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Default => f.write_str(&self.what),
            _ => write!(f, "{}: {}", self.place, self.what),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
