//! Collects everything that is wrong with a resource, with paths.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::error::{FieldError, Invalid};

/// Longest name, as in DNS.
pub const MAX_NAME: usize = 253;

/// Gathers field errors; paths are relative to the innermost [`Validator::within`].
#[derive(Debug, Default)]
pub struct Validator {
    prefix: Vec<String>,
    errors: Vec<FieldError>,
}

impl Validator {
    /// Nothing wrong so far.
    pub fn new() -> Validator {
        Validator::default()
    }

    /// Runs checks whose paths lie below `part` (`spec`, `rules[3]`).
    pub fn within(&mut self, part: impl Into<String>, checks: impl FnOnce(&mut Validator)) {
        self.prefix.push(part.into());
        checks(self);
        self.prefix.pop();
    }

    /// Runs checks on every item of a list.
    pub fn each<T>(&mut self, field: &str, items: &[T], mut checks: impl FnMut(&mut Validator, &T)) {
        for (index, item) in items.iter().enumerate() {
            self.within(format!("{field}[{index}]"), |v| checks(v, item));
        }
    }

    /// Notes an error.
    pub fn error(&mut self, field: &str, message: impl Into<String>) {
        self.push(field, message.into(), None);
    }

    /// Notes an error with what to do about it.
    pub fn error_with_hint(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.push(field, message.into(), Some(hint.into()));
    }

    fn push(&mut self, field: &str, message: String, hint: Option<String>) {
        let mut path = self.prefix.clone();
        if !field.is_empty() {
            path.push(field.to_owned());
        }
        self.errors.push(FieldError { path: path.join("."), message, hint });
    }

    /// Notes an error that was found elsewhere; its path goes below this one's.
    pub fn refuse(&mut self, error: FieldError) {
        self.push(&error.path, error.message, error.hint);
    }

    /// Notes `message` unless `holds`.
    pub fn require(&mut self, holds: bool, field: &str, message: &str) {
        if !holds {
            self.error(field, message);
        }
    }

    /// The value must lie in the range.
    pub fn range<T: PartialOrd + Display>(&mut self, field: &str, value: T, low: T, high: T) {
        // Written so that it refuses what compares with nothing (NaN), too.
        if !(value >= low && value <= high) {
            self.error(field, format!("is {value}, must be from {low} to {high}"));
        }
    }

    /// A resource name.
    pub fn name(&mut self, field: &str, name: &str) {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        if name.is_empty() {
            self.error(field, "must not be empty");
        } else if name.len() > MAX_NAME {
            self.error(field, format!("has {} characters, at most {MAX_NAME} are allowed", name.len()));
        } else if !name.chars().all(legal) || !ends(name.chars().next()) || !ends(name.chars().last()) {
            let hint = "lower-case letters, digits, '-' and '.'; first and last a letter or digit";
            self.error_with_hint(field, format!("{name:?} is not a legal name"), hint);
        }
    }

    /// Label keys and values: short, printable.
    pub fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>) {
        for (key, value) in labels {
            let legal =
                |s: &str| s.len() <= MAX_NAME && s.chars().all(|c| c.is_ascii_graphic() && c != ',' && c != '=');
            if key.is_empty() || !legal(key) || !legal(value) {
                self.error(field, format!("{key:?}: {value:?} is not a legal label"));
            }
        }
    }

    /// The errors, if there are any.
    pub fn finish(self) -> Result<(), Invalid> {
        if self.errors.is_empty() { Ok(()) } else { Err(Invalid(self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: impl FnOnce(&mut Validator)) -> Vec<String> {
        let mut validator = Validator::new();
        check(&mut validator);
        validator.finish().err().map(|e| e.0.iter().map(FieldError::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn all_errors_are_gathered_with_their_paths() {
        let errors = told(|v| {
            v.within("spec", |v| {
                v.range("tier", 9, 1, 4);
                v.each("rules", &[1, 0, 0], |v, n| v.require(*n > 0, "n", "must be above 0"));
            });
            v.error("", "is odd");
        });
        let wanted = [
            "spec.tier: is 9, must be from 1 to 4",
            "spec.rules[1].n: must be above 0",
            "spec.rules[2].n: must be above 0",
            "is odd",
        ];
        assert_eq!(errors, wanted);
    }

    #[test]
    fn names_are_dns_names() {
        for right in ["a", "a-1", "1.b", &"x".repeat(MAX_NAME)] {
            assert_eq!(told(|v| v.name("n", right)), [] as [String; 0], "{right}");
        }
        for wrong in ["", "A", "a_b", "-a", "a-", ".a", "a/b", "ä", &"x".repeat(MAX_NAME + 1)] {
            assert_eq!(told(|v| v.name("n", wrong)).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn labels_can_be_selected() {
        let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(told(|v| v.labels("l", &labels("team", "pay/2"))).is_empty());
        for (key, value) in [("", "a"), ("a,b", "c"), ("a", "b=c"), ("a", "b c"), ("a", "ü")] {
            assert_eq!(told(|v| v.labels("l", &labels(key, value))).len(), 1, "{key}={value}");
        }
    }

    #[test]
    fn a_range_refuses_what_is_no_number() {
        assert_eq!(told(|v| v.range("n", f64::NAN, 0.0, 1.0)), ["n: is NaN, must be from 0 to 1"]);
    }
}
