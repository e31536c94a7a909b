//! Strict reading of YAML and JSON: errors carry the field's path and the nearest known name.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{FieldError, Invalid, nearest};
use crate::object::{API_VERSION, Object};

/// Largest document accepted, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;

/// Reads all resources of a YAML (or JSON) text, `---` between them; each is validated.
///
/// # Errors
/// The first text error, or all field errors of the first invalid document, with its number in the path.
pub fn objects(text: &str) -> Result<Vec<Object>, Invalid> {
    let documents = documents(text)?;
    let many = documents.len() > 1;
    let read =
        |(index, value): (usize, Value)| object(value).map_err(|e| if many { numbered(index + 1, e) } else { e });
    documents.into_iter().enumerate().map(read).collect()
}

/// Reads the documents of a YAML (or JSON) text as they are; empty ones are passed over.
///
/// # Errors
/// If the text is too large or is no YAML.
pub fn documents(text: &str) -> Result<Vec<Value>, Invalid> {
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(Invalid::one("", format!("larger than {MAX_DOCUMENT_BYTES} bytes")));
    }
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|e| Invalid::one("", e.to_string()))?;
    Ok(documents.into_iter().filter(|d| !d.is_null()).collect())
}

/// Reads the one document of a text.
///
/// # Errors
/// As [`documents`], and if there is not exactly one.
pub fn document(text: &str) -> Result<Value, Invalid> {
    let mut documents = documents(text)?;
    match (documents.pop(), documents.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(Invalid::one("", "is empty")),
        (_, more) => Err(Invalid::one("", format!("has {} documents, one is wanted here", more + 1))),
    }
}

fn numbered(index: usize, invalid: Invalid) -> Invalid {
    let prefix = |e: FieldError| FieldError { path: format!("document {index}: {}", e.path), ..e };
    Invalid(invalid.0.into_iter().map(prefix).collect())
}

/// Reads and validates one resource.
pub fn object(value: Value) -> Result<Object, Invalid> {
    known_kind(&value)?;
    let object: Object = typed("", value)?;
    if object.api_version != API_VERSION {
        return Err(Invalid::one(
            "apiVersion",
            format!("is {:?}, this server speaks {API_VERSION:?}", object.api_version),
        ));
    }
    object.validate()?;
    Ok(object)
}

/// Says a wrong kind in one line rather than with serde's list of variants.
fn known_kind(value: &Value) -> Result<(), Invalid> {
    let Some(kind) = value.get("kind").and_then(Value::as_str) else {
        return Err(Invalid::one("kind", "is missing"));
    };
    match kind.parse::<crate::Kind>() {
        Ok(known) if known.name() == kind => Ok(()),
        Ok(known) => Err(Invalid::one("kind", format!("is {kind:?}, write {:?}", known.name()))),
        Err(unknown) => Err(Invalid::one("kind", unknown.to_string())),
    }
}

/// Reads a typed value below `path`, refusing unknown fields with a hint.
pub fn typed<T: DeserializeOwned>(path: &str, value: Value) -> Result<T, Invalid> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let full = match (path, inner.as_str()) {
            ("", inner) => inner.to_owned(),
            (path, "." | "") => path.to_owned(),
            (path, inner) => format!("{path}.{inner}"),
        };
        Invalid(vec![explain(full, &error.into_inner().to_string())])
    })
}

/// Turns serde's text into a field error: `unknown field "x", expected one of ...` gets the nearest name.
fn explain(path: String, message: &str) -> FieldError {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let (Some(given), true) = (quoted.first(), unknown) else {
        return FieldError { path, message: message.to_owned(), hint: None };
    };
    let known = &quoted[1..];
    let hint = match nearest(given, known.iter().copied()) {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("known: {}", known.join(", ")),
    };
    let what = if message.starts_with("unknown field") { "unknown field" } else { "unknown value" };
    FieldError { path, message: format!("{what} {given:?}"), hint: Some(hint) }
}
