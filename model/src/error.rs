//! What is wrong with a resource, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing wrong at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    /// Path of the field, e.g. `spec.rules[0].backends[1].weight`.
    pub path: String,
    /// What is wrong, in words.
    pub message: String,
    /// What to do, e.g. `did you mean "weight"?`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// Everything that is wrong with one resource; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid(pub Vec<FieldError>);

impl Invalid {
    /// A single error.
    pub fn one(path: impl Into<String>, message: impl Into<String>) -> Invalid {
        Invalid(vec![FieldError { path: path.into(), message: message.into(), hint: None }])
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(FieldError::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Invalid {}

/// The candidate most like `given`, if any is like it at all.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = given.to_ascii_lowercase();
    let score = |c: &&str| strsim::jaro_winkler(&lower, &c.to_ascii_lowercase());
    candidates.into_iter().filter(|c| score(c) >= 0.75).max_by(|a, b| score(a).total_cmp(&score(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["weight", "group", "app"];
        assert_eq!(nearest("wieght", known), Some("weight"));
        assert_eq!(nearest("Weights", known), Some("weight"));
        assert_eq!(nearest("zone", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn errors_read_as_sentences() {
        let hint = Some("did you mean \"b\"?".to_owned());
        let error = FieldError { path: "spec.a".into(), message: "unknown field \"a\"".into(), hint };
        let invalid = Invalid(vec![error, FieldError { path: String::new(), message: "is empty".into(), hint: None }]);
        assert_eq!(invalid.to_string(), "spec.a: unknown field \"a\" (did you mean \"b\"?)\nis empty");
    }
}
