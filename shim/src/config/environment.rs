//! The variables of the environment, read one by one, with every fault collected. A secret may be in a file instead, as
//! containers' secrets are.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;

/// The longest secret in a file, in bytes.
const MAX_SECRET_BYTES: u64 = 64 << 10;
/// What a variable that names a secret's file ends with.
const FILE_SUFFIX: &str = "_FILE";

/// The variables by name. A value that is not UTF-8 is `None`, and reported when it is read.
pub(crate) struct Environment(BTreeMap<String, Option<String>>);

/// One thing wrong with one variable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    variable: &'static str,
    fault: String,
}

/// Everything that is wrong with the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigError(Vec<Fault>);

impl Environment {
    /// The environment this process was started with.
    pub(crate) fn from_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.into_string().ok()))
        });
        Self(variables.collect())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.variable, self.fault)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the configuration is wrong")?;
        self.0.iter().try_for_each(|fault| write!(formatter, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigError {}

/// Reads variables one by one and collects the faults.
pub(super) struct Reader<'a> {
    environment: &'a Environment,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self { environment, faults: Vec::new() }
    }

    /// A variable that must be set; its parser decides whether it may be empty.
    pub(super) fn required<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.environment.0.contains_key(variable) {
            self.parse(variable, parse)
        } else {
            self.faults.push(Fault { variable, fault: "is not set".to_owned() });
            None
        }
    }

    /// A variable that may be unset; an empty one counts as unset, because compose files leave one out that way.
    pub(super) fn optional<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.environment.0.get(variable) {
            None => None,
            Some(Some(value)) if value.is_empty() => None,
            Some(_) => self.parse(variable, parse),
        }
    }

    fn parse<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.environment.0.get(variable).and_then(Option::as_deref);
        value
            .ok_or_else(|| "is not UTF-8".to_owned())
            .and_then(parse)
            .map_err(|fault| self.faults.push(Fault { variable, fault }))
            .ok()
    }

    /// A secret that must be set, in its variable or in the file that `…_FILE` names.
    pub(super) fn required_secret<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.secret(variable, parse, Self::required)
    }

    /// A secret that may be unset, as [`Self::optional`].
    pub(super) fn optional_secret<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.secret(variable, parse, Self::optional)
    }

    /// A secret, in the file that `…_FILE` names, or else as `unfiled` reads the variable.
    fn secret<T, P: FnOnce(&str) -> Result<T, String>>(
        &mut self,
        variable: &'static str,
        parse: P,
        unfiled: impl FnOnce(&mut Self, &'static str, P) -> Option<T>,
    ) -> Option<T> {
        match self.secret_file(variable) {
            Some(path) => self.parse_file(variable, &path, parse),
            None => unfiled(self, variable, parse),
        }
    }

    /// The path of a secret's file, if one is named.
    fn secret_file(&self, variable: &'static str) -> Option<String> {
        let path = self.environment.0.get(&format!("{variable}{FILE_SUFFIX}"))?;
        // A path that is not UTF-8 is no file's that is found.
        path.clone().or_else(|| Some("\u{fffd}".to_owned())).filter(|path| !path.is_empty())
    }

    fn parse_file<T>(
        &mut self,
        variable: &'static str,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let is_set_too = self.environment.0.get(variable).is_some_and(|value| value.as_deref() != Some(""));
        let value = if is_set_too {
            Err(format!("is set, and {variable}{FILE_SUFFIX} too"))
        } else {
            read_secret(path).map_err(|fault| format!("the file of {variable}{FILE_SUFFIX} {fault}"))
        };
        value.and_then(|text| parse(&text)).map_err(|fault| self.faults.push(Fault { variable, fault })).ok()
    }

    /// What was read, if no variable is at fault.
    pub(super) fn finish<T>(self, config: Option<T>) -> Result<T, ConfigError> {
        config.filter(|_| self.faults.is_empty()).ok_or(ConfigError(self.faults))
    }
}

/// The content of a file without the line break at its end.
fn read_secret(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text));
    read.map_err(|fault| format!("cannot be read: {}", fault.kind()))?;
    if text.len() as u64 > MAX_SECRET_BYTES {
        return Err(format!("is longer than {MAX_SECRET_BYTES} bytes"));
    }
    Ok(text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line)).to_owned())
}

#[cfg(test)]
impl Environment {
    /// These variables and no others.
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), Some((*value).to_owned()));
        Self(variables.iter().map(owned).collect())
    }
}
