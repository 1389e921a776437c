//! The variables of the environment, read one by one, with every fault collected.

use std::collections::BTreeMap;
use std::fmt;

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

    /// What was read, if no variable is at fault.
    pub(super) fn finish<T>(self, config: Option<T>) -> Result<T, ConfigError> {
        config.filter(|_| self.faults.is_empty()).ok_or(ConfigError(self.faults))
    }
}

#[cfg(test)]
impl Environment {
    /// These variables and no others.
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), Some((*value).to_owned()));
        Self(variables.iter().map(owned).collect())
    }
}
