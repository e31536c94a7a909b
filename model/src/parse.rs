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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Path and hint of the only error.
    fn refused(text: &str) -> (String, String) {
        let error = objects(text).unwrap_err().0.remove(0);
        (error.path, error.hint.unwrap_or(error.message))
    }

    const ROUTE: &str = "\
apiVersion: weir.dev/v1
kind: Route
metadata: {name: r}
spec:
  app: stock
  rules:
  - backends: [{app: stock}]
  - backends: [{app: stock}, {app: stock, wieght: 3}]
";

    #[test]
    fn unknown_fields_are_refused_with_path_and_nearest_name() {
        let hint = |name: &str| format!("did you mean {name:?}?");
        assert_eq!(refused(ROUTE), ("spec.rules[1].backends[1].wieght".into(), hint("weight")));
        let top = ROUTE.replace("spec:", "sepc:");
        assert_eq!(refused(&top), ("sepc".into(), hint("spec")));
        let metadata = ROUTE.replace("{name: r}", "{name: r, lables: {a: b}}");
        assert_eq!(refused(&metadata), ("metadata.lables".into(), hint("labels")));
        let matches = "matches: [{path: {type: Prefix, value: /}}]";
        let value = ROUTE.replace("backends: [{app: stock}, {app: stock, wieght: 3}]", matches);
        assert_eq!(refused(&value), ("spec.rules[1].matches[0].path.type".into(), hint("PathPrefix")));
    }

    #[test]
    fn a_name_like_nothing_known_gets_the_list() {
        let (path, hint) = refused(&ROUTE.replace("wieght", "qqq"));
        assert_eq!(path, "spec.rules[1].backends[1].qqq");
        assert_eq!(hint, "known: app, group, weight");
    }

    #[test]
    fn wrong_types_and_missing_fields_name_their_place() {
        let (path, message) = refused(&ROUTE.replace("wieght: 3", "weight: many"));
        assert_eq!(path, "spec.rules[1].backends[1].weight");
        assert!(message.contains("expected u32"), "{message}");
        let (path, message) = refused(&ROUTE.replace("wieght", "weight").replace("  app: stock\n", ""));
        assert_eq!((path.as_str(), message.as_str()), ("spec", "missing field `app`"));
    }

    #[test]
    fn kinds_are_told_in_one_line() {
        assert_eq!(refused("kind: Rout"), ("kind".into(), "unknown kind \"Rout\", did you mean \"Route\"?".into()));
        assert_eq!(refused("kind: route"), ("kind".into(), "is \"route\", write \"Route\"".into()));
        assert_eq!(refused("metadata: {name: x}"), ("kind".into(), "is missing".into()));
        let old = ROUTE.replace("weir.dev/v1", "weir.dev/v0").replace("wieght", "weight");
        assert_eq!(refused(&old).0, "apiVersion");
    }

    #[test]
    fn documents_are_numbered_and_empty_ones_passed_over() {
        let app = "apiVersion: weir.dev/v1\nkind: App\nmetadata: {name: a}\n";
        let read = objects(&format!("---\n{app}---\n---\n{app}")).unwrap();
        assert_eq!(read.len(), 2);
        let (path, _) = refused(&format!("{app}---\n{}", app.replace("name: a", "name: A")));
        assert_eq!(path, "document 2: metadata.name");
        assert!(document(&format!("{app}---\n{app}")).unwrap_err().to_string().contains("2 documents"));
        assert_eq!(document("").unwrap_err().to_string(), "is empty");
        assert_eq!(document(r#"{"a": 1}"#).unwrap(), json!({"a": 1}), "JSON is YAML");
    }

    #[test]
    fn hostile_texts_are_refused_not_followed() {
        assert!(documents(&"a".repeat(MAX_DOCUMENT_BYTES + 1)).is_err());
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
                    g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
        assert!(documents(bomb).is_err(), "an expansion without end");
        assert!(documents(&"[".repeat(100_000)).is_err(), "a nesting without end");
        assert!(documents("a: 1\na: 2\n").is_err(), "the same key twice");
    }
}
