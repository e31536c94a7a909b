//! What a command is about: `KIND`, `KIND NAME...` or `KIND/NAME...`, as kubectl takes them.

use serde_json::Value;
use weir_model::Kind;

use crate::client::BASE;
use crate::failure::{Failure, USAGE};

/// A kind, or one resource of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which kind.
    pub kind: Kind,
    /// Which one; `None`: all.
    pub name: Option<String>,
}

impl Target {
    /// Path of the kind's resources, or of the one.
    pub fn path(&self) -> String {
        let list = format!("{BASE}/{}", self.kind.plural());
        self.name.as_ref().map_or(list.clone(), |name| format!("{list}/{}", escape(name)))
    }
}

/// Reads targets from arguments.
pub fn targets(arguments: &[String]) -> Result<Vec<Target>, Failure> {
    let (first, names) = arguments.split_first().ok_or_else(|| usage("name a kind, e.g. `instances`"))?;
    if first.contains('/') {
        return arguments.iter().map(|a| one(a)).collect();
    }
    let kinds: Vec<Kind> = first.split(',').map(kind).collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Ok(kinds.into_iter().map(|kind| Target { kind, name: None }).collect());
    }
    let of_kind = |kind: Kind| names.iter().map(move |name| Target { kind, name: Some(name.clone()) });
    Ok(kinds.into_iter().flat_map(of_kind).collect())
}

/// Reads exactly one resource: `KIND/NAME` or `KIND NAME`.
pub fn single(arguments: &[String]) -> Result<Target, Failure> {
    match targets(arguments)?.as_slice() {
        [target] if target.name.is_some() => Ok(target.clone()),
        _ => Err(usage("name one resource as KIND/NAME or KIND NAME")),
    }
}

/// `KIND/NAME`.
pub fn one(text: &str) -> Result<Target, Failure> {
    match text.split_once('/') {
        Some((k, name)) if !name.is_empty() => Ok(Target { kind: kind(k)?, name: Some(name.to_owned()) }),
        _ => Err(usage(format!("{text:?} is not of the form KIND/NAME"))),
    }
}

fn kind(text: &str) -> Result<Kind, Failure> {
    let known = || Kind::ALL.map(Kind::plural).join(", ");
    text.parse().map_err(|unknown: weir_model::kind::UnknownKind| {
        Failure::new(unknown.to_string()).code(USAGE).hint(format!("kinds: {}", known()))
    })
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(message).code(USAGE)
}

/// `kind/name` of an object, as it is printed everywhere.
pub fn called(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("?").to_ascii_lowercase();
    format!("{kind}/{}", object["metadata"]["name"].as_str().unwrap_or("?"))
}

/// A name as a part of a path (RFC 3986, section 2.3: what need not be escaped).
fn escape(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(Kind, Option<String>)>, Failure> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        Ok(targets(&words)?.into_iter().map(|t| (t.kind, t.name)).collect())
    }

    #[test]
    fn all_forms_are_read() {
        let name = |n: &str| Some(n.to_owned());
        assert_eq!(read("apps").unwrap(), [(Kind::App, None)]);
        assert_eq!(read("app,inst").unwrap(), [(Kind::App, None), (Kind::Instance, None)]);
        assert_eq!(read("app a b").unwrap(), [(Kind::App, name("a")), (Kind::App, name("b"))]);
        assert_eq!(read("app/a chg/b").unwrap(), [(Kind::App, name("a")), (Kind::Change, name("b"))]);
    }

    #[test]
    fn mistakes_are_usage() {
        for wrong in ["ap", "app/", "/a", "app/a b"] {
            assert_eq!(read(wrong).unwrap_err().code, USAGE, "{wrong}");
        }
        assert!(single(&["apps".into()]).is_err());
    }

    #[test]
    fn names_cannot_leave_their_place_in_the_path() {
        let target = Target { kind: Kind::App, name: Some("../x?y".into()) };
        assert_eq!(target.path(), "/apis/weir.dev/v1/apps/..%2Fx%3Fy");
    }
}
