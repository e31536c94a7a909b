//! A scope in words.

use std::fmt;

use super::Scope;

impl fmt::Display for Scope {
    /// As in `app stock or order, unit east`; "everything" if it leaves nothing out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [("app", &self.apps), ("unit", &self.units), ("stack", &self.stacks), ("group", &self.groups)];
        let mut parts: Vec<String> =
            lists.iter().filter(|(_, l)| !l.is_empty()).map(|(what, l)| format!("{what} {}", l.join(" or "))).collect();
        parts.extend(self.labels.iter().map(|(key, value)| format!("label {key}={value}")));
        f.write_str(if parts.is_empty() { "everything" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_as_what_it_asks_of_an_instance() {
        assert_eq!(Scope::default().to_string(), "everything");
        let scope = Scope {
            apps: vec!["stock".into(), "order".into()],
            units: vec!["east".into()],
            labels: [("team".to_owned(), "pay".to_owned())].into(),
            ..Scope::default()
        };
        assert_eq!(scope.to_string(), "app stock or order, unit east, label team=pay");
    }
}
