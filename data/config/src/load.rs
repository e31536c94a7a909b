//! Reading a configuration from a YAML file.

use std::path::{Path, PathBuf};

use crate::{ConfigError, ProxyConfig, validate};

/// Largest file that is read (16 MiB).
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Why a file gave no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than 16 MiB.
    #[error("{} has {bytes} bytes; a configuration has at most {MAX_FILE_BYTES}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not YAML, or not of the configuration's shape.
    #[error("at {field}: {message}")]
    Syntax {
        /// Path of the field, e.g. `listeners[0].bind`.
        field: String,
        /// What is wrong, with line and column.
        message: String,
    },
    /// It is well formed but contradicts itself.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<ConfigError>),
}

/// Reads and validates a file.
///
/// # Errors
/// If it cannot be read, is too large, not of the right shape, or invalid.
pub fn load(path: &Path) -> Result<ProxyConfig, LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned(), bytes });
    }
    from_yaml(&std::fs::read_to_string(path).map_err(read)?)
}

/// Reads and validates a text in YAML or JSON.
///
/// # Errors
/// If it is not of the right shape, or invalid.
pub fn from_yaml(text: &str) -> Result<ProxyConfig, LoadError> {
    let config = parse(text)?;
    validate(&config).map_err(LoadError::Invalid)?;
    Ok(config)
}

fn parse(text: &str) -> Result<ProxyConfig, LoadError> {
    let value: serde_json::Value = match serde_json::from_str(text) {
        // JSON has no aliases that multiply, so the bounds of YAML need not hold for it: tens of thousands of routes may come.
        Ok(value) => value,
        Err(_) => serde_saphyr::from_str(text)
            .map_err(|error| LoadError::Syntax { field: ".".into(), message: error.to_string() })?,
    };
    serde_path_to_error::deserialize(value)
        .map_err(|error| LoadError::Syntax { field: error.path().to_string(), message: error.inner().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
listeners: [{name: in, bind: '127.0.0.1:80', routes: main}]
routeTables:
- name: main
  hosts:
  - name: any
    domains: ['*']
    routes: [{action: {forward: {clusters: [{cluster: app}]}}}]
clusters: [{name: app, endpoints: [{address: '127.0.0.1:81'}]}]
";

    #[test]
    fn a_small_file_needs_only_names_and_addresses() {
        let config = from_yaml(SMALL).unwrap();
        assert_eq!(config.clusters[0].connect_timeout_ms, 1_000);
        assert_eq!(config.listeners[0].limits.max_headers, 100);
    }

    #[test]
    fn json_may_have_tens_of_thousands_of_routes() {
        let config = from_yaml(SMALL).unwrap();
        let mut json = serde_json::to_value(&config).unwrap();
        let route = json["routeTables"][0]["hosts"][0]["routes"][0].clone();
        json["routeTables"][0]["hosts"][0]["routes"] = vec![route; 20_000].into();
        let large = from_yaml(&json.to_string()).unwrap();
        assert_eq!(large.route_tables[0].hosts[0].routes.len(), 20_000);
    }

    #[test]
    fn an_unknown_field_is_told_with_its_place() {
        let error = from_yaml(&SMALL.replace("routes: main", "route: main")).unwrap_err().to_string();
        assert!(error.contains("listeners[0]") && error.contains("route"), "{error}");
    }

    #[test]
    fn what_refers_to_nothing_is_told() {
        let error = from_yaml(&SMALL.replace("cluster: app", "cluster: ap")).unwrap_err().to_string();
        assert!(error.contains("`ap`") && error.contains("routeTables[0].hosts[0].routes[0]"), "{error}");
    }
}
