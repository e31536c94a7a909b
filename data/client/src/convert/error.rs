//! What is wrong with a resource, and where.

/// One problem: the path of the field in protobuf's own names, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertError {
    /// Path of the field, e.g. `filter_chains[0].filters[0]`; empty: the resource as a whole.
    pub field: String,
    /// What is wrong, and what would be right where there is one answer.
    pub message: String,
}

impl std::error::Error for ConvertError {}

impl std::fmt::Display for ConvertError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, ConvertError>;

impl ConvertError {
    /// A problem of the field that the caller is at; [`Under`] adds the path.
    pub(crate) fn here(message: impl Into<String>) -> Self {
        ConvertError { field: String::new(), message: message.into() }
    }

    pub(crate) fn at(field: impl Into<String>, message: impl Into<String>) -> Self {
        ConvertError { field: field.into(), message: message.into() }
    }

    /// A feature of the protocol that this proxy does not have.
    pub(crate) fn unsupported(field: impl Into<String>) -> Self {
        Self::at(field, "is not supported by this proxy")
    }
}

/// Puts a problem under the field that holds the one it was found in.
pub(crate) trait Under<T> {
    fn under(self, field: impl AsRef<str>) -> Result<T>;
    fn under_index(self, field: &str, index: usize) -> Result<T>;
}

impl<T> Under<T> for Result<T> {
    fn under(self, field: impl AsRef<str>) -> Result<T> {
        self.map_err(|error| {
            let dot = if error.field.is_empty() { "" } else { "." };
            ConvertError { field: format!("{}{dot}{}", field.as_ref(), error.field), message: error.message }
        })
    }

    fn under_index(self, field: &str, index: usize) -> Result<T> {
        if self.is_ok() { self } else { self.under(format!("{field}[{index}]")) }
    }
}

/// Converts each item, naming the index of the first that fails.
pub(crate) fn each<I, O>(field: &str, items: &[I], convert: impl Fn(&I) -> Result<O>) -> Result<Vec<O>> {
    items.iter().enumerate().map(|(index, item)| convert(item).under_index(field, index)).collect()
}

/// Fails if the control plane uses a feature that would change what happens to requests.
pub(crate) fn refuse(used: bool, field: &str) -> Result<()> {
    if used { Err(ConvertError::unsupported(field)) } else { Ok(()) }
}
