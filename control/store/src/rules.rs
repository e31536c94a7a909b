//! What a write does to a resource, whichever store keeps it. Pure: the store supplies what it has, the version of the
//! write and the time, and keeps what it gets back.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use weir_model::{API_VERSION, Invalid, Object};

use crate::error::{Error, Result};
use crate::record::Lease;

/// Largest resource, in bytes of JSON.
pub const MAX_OBJECT_BYTES: usize = 1 << 20;

/// The stored form of a new resource.
///
/// # Errors
/// [`Error::Invalid`].
pub fn created(object: Object, version: u64, now: Timestamp) -> Result<Object> {
    let mut object = checked(&object)?;
    object.metadata.uid = new_uid();
    object.metadata.resource_version = version;
    object.metadata.generation = 1;
    object.metadata.created_at = Some(now);
    Ok(object)
}

/// `stored` with spec, labels and annotations of `given`; `None` if that changes nothing.
///
/// # Errors
/// [`Error::Conflict`], [`Error::Invalid`].
pub fn updated(stored: &Object, given: Object, version: u64) -> Result<Option<Object>> {
    based_on(stored, given.metadata.resource_version)?;
    let mut wanted = stored.clone();
    wanted.api_version = given.api_version;
    wanted.spec = given.spec;
    wanted.metadata.labels = given.metadata.labels;
    wanted.metadata.annotations = given.metadata.annotations;
    let mut new = checked(&wanted)?;
    if new.spec != stored.spec {
        new.metadata.generation += 1;
    }
    Ok(stamped(stored, new, version))
}

/// `stored` with the status of `given`; `None` if that changes nothing.
///
/// # Errors
/// [`Error::Conflict`], [`Error::Invalid`].
pub fn status_updated(stored: &Object, given: Object, version: u64) -> Result<Option<Object>> {
    based_on(stored, given.metadata.resource_version)?;
    let wanted = Object { status: given.status, ..stored.clone() };
    Ok(stamped(stored, checked(&wanted)?, version))
}

/// What watchers of the deletion are given.
///
/// # Errors
/// [`Error::Conflict`].
pub fn deleted(stored: &Object, given: Option<u64>, version: u64) -> Result<Object> {
    given.map_or(Ok(()), |given| based_on(stored, given))?;
    let mut last = stored.clone();
    last.metadata.resource_version = version;
    Ok(last)
}

/// Labels that a watcher must know of besides those of `new`.
pub fn labels_before(stored: &Object, new: &Object) -> Option<BTreeMap<String, String>> {
    (stored.metadata.labels != new.metadata.labels).then(|| stored.metadata.labels.clone())
}

/// The lease after `holder` asked for it at `now`; `None` if somebody else has it. `stored` is what the store has of
/// it, with an empty holder after a release.
pub fn acquired(stored: Option<&Lease>, name: &str, holder: &str, ttl: Duration, now: Timestamp) -> Option<Lease> {
    let expires_at = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
    let lease = |fencing| Lease { name: name.to_owned(), holder: holder.to_owned(), fencing, expires_at };
    match stored {
        None => Some(lease(1)),
        Some(old) if old.holder == holder => Some(lease(old.fencing)),
        Some(old) if old.holder.is_empty() || old.expires_at <= now => Some(lease(old.fencing + 1)),
        Some(_) => None,
    }
}

fn based_on(stored: &Object, given: u64) -> Result<()> {
    let version = stored.metadata.resource_version;
    if version == given { Ok(()) } else { Err(Error::Conflict { key: stored.key(), stored: version, given }) }
}

fn stamped(stored: &Object, mut new: Object, version: u64) -> Option<Object> {
    if new == *stored {
        return None;
    }
    new.metadata.resource_version = version;
    Some(new)
}

fn checked(object: &Object) -> Result<Object> {
    if object.api_version != API_VERSION {
        let message = format!("is {:?}, this store keeps {API_VERSION:?}", object.api_version);
        return Err(Invalid::one("apiVersion", message).into());
    }
    let canonical = object.canonical()?;
    let bytes = serde_json::to_vec(&canonical).map_or(usize::MAX, |json| json.len());
    if bytes > MAX_OBJECT_BYTES {
        return Err(Invalid::one("", format!("has {bytes} bytes as JSON, at most {MAX_OBJECT_BYTES} are kept")).into());
    }
    Ok(canonical)
}

/// A random UUID (RFC 9562, version 4).
fn new_uid() -> String {
    let random = fastrand::u128(..);
    let version = (random & !(0xf << 76)) | (0x4 << 76);
    let uuid = (version & !(0x3 << 62)) | (0x2 << 62);
    let hex = format!("{uuid:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_4_uuids() {
        let uid = new_uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(&uid[14..15], "4");
        assert!("89ab".contains(&uid[19..20]), "{uid}");
        assert_ne!(uid, new_uid());
    }
}
