//! What of a resource that is at work may be edited, and how it goes: nothing that carries requests or undoes harm is
//! taken away under way.

use axum::http::StatusCode;
use weir_model::change::{Change, ChangeSpec};
use weir_model::encryption::{Encryption, EncryptionMode};
use weir_model::instance::{Instance, ManagedBy};
use weir_model::{Kind, Object, Resource};

use crate::error::{ApiError, Result};

/// How a resource is removed.
#[derive(Debug)]
pub(crate) enum Removal {
    /// Its record is deleted.
    Now,
    /// It is told to leave: this is to be stored. Its controller deletes the record when nothing of it is left.
    Leave(Box<Object>),
}

/// How `object` is removed.
///
/// # Errors
/// 409 if it must not be now.
pub(crate) fn of(object: &Object, force: bool) -> Result<Removal> {
    match object.kind {
        Kind::Instance if !force => instance(object),
        Kind::Change => change(object),
        Kind::Encryption if !force => encryption(object),
        Kind::ChangeRecord => Err(kept(object)),
        _ => Ok(Removal::Now),
    }
}

/// Callers learn first that one which Weir runs leaves, and what it carries finishes.
fn instance(object: &Object) -> Result<Removal> {
    let mut instance = Instance::try_from(object.clone())?;
    if instance.spec.managed_by != ManagedBy::Weir {
        return Ok(Removal::Now);
    }
    instance.spec.retire = true;
    Ok(Removal::Leave(Box::new(instance.to_object())))
}

/// Its record is all that tells which instances it has touched and what they ran before.
fn change(object: &Object) -> Result<Removal> {
    let change = Change::try_from(object.clone())?;
    if change.status.started_at.is_none() || change.status.phase.ended() {
        return Ok(Removal::Now);
    }
    let (key, phase) = (object.key(), change.status.phase);
    let advice = format!(
        "{key} has begun and not ended ({phase:?}): without it nothing rolls back what it did. Abort it or roll it back \
         first: `weir change abort|rollback {}`",
        object.metadata.name
    );
    Err(ApiError::new(StatusCode::CONFLICT, "UnderWay", advice))
}

/// Without it calls are plaintext at once: only when they are so already does nobody notice.
fn encryption(object: &Object) -> Result<Removal> {
    let encryption = Encryption::try_from(object.clone())?;
    if encryption.status.effective_mode == EncryptionMode::Disabled {
        return Ok(Removal::Now);
    }
    let advice = format!(
        "calls of {:?} are {} by it: set `mode: disabled`, and delete it once its effectiveMode is disabled too",
        encryption.spec.app,
        encryption.status.effective_mode.name()
    );
    Err(ApiError::new(StatusCode::CONFLICT, "InEffect", advice))
}

/// The history of a change is as long as the change.
fn kept(record: &Object) -> ApiError {
    let key = record.key();
    ApiError::new(StatusCode::CONFLICT, "Kept", format!("{key} goes with its change: delete that once it has ended"))
}

/// Refuses edits of a change that its course does not allow any more.
///
/// # Errors
/// 422 with the fields.
pub(crate) fn may_be_edited(before: &Object, after: &Object) -> Result<()> {
    if before.kind != Kind::Change || before.spec == after.spec {
        return Ok(());
    }
    let before = Change::try_from(before.clone())?;
    let after: Resource<ChangeSpec> = after.clone().try_into()?;
    Ok(before.spec.may_be_edited_to(&after.spec, &before.status)?)
}
