//! Who lets a change go on without a check: the one who writes it, whatever the text says.

use weir_model::change::{Change, ChangeSpec};
use weir_model::{Kind, Object, Resource};

use crate::error::Result;

/// Puts `actor` to the skips of a change that are new or have another reason; the others keep theirs, so that writing the
/// same again changes nothing.
pub(crate) fn sign(before: Option<&Object>, after: &mut Object, actor: &str) -> Result<()> {
    if after.kind != Kind::Change {
        return Ok(());
    }
    let mut change: Resource<ChangeSpec> = after.clone().try_into()?;
    if change.spec.skip_checks.is_empty() {
        return Ok(());
    }
    let before = before.map(|b| Change::try_from(b.clone())).transpose()?;
    let known = before.map(|b| b.spec.skip_checks).unwrap_or_default();
    for (code, skip) in &mut change.spec.skip_checks {
        let same = known.get(code).filter(|k| k.reason == skip.reason);
        actor.clone_into(&mut skip.actor);
        if let Some(same) = same {
            skip.actor.clone_from(&same.actor);
        }
    }
    after.spec = change.to_object().spec;
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_model::check::Skip;

    use super::*;

    fn skipping(reason: &str, actor: &str) -> Object {
        let mut spec = ChangeSpec::proxy_upgrade("b");
        spec.skip_checks.insert("F-OWNER".into(), Skip { reason: reason.into(), actor: actor.into() });
        Change::new("up", spec).to_object()
    }

    fn signed(before: Option<&Object>, mut after: Object, actor: &str) -> String {
        sign(before, &mut after, actor).expect("a valid change");
        Change::try_from(after).expect("still valid").spec.skip_checks["F-OWNER"].actor.clone()
    }

    #[test]
    fn a_skip_is_signed_by_the_one_who_writes_it() {
        let forged = skipping("known", "user/boss");
        assert_eq!(signed(None, forged, "user/a"), "user/a");
        let before = skipping("known", "user/a");
        assert_eq!(signed(Some(&before), skipping("known", ""), "user/b"), "user/a", "nothing is new");
        assert_eq!(signed(Some(&before), skipping("another", ""), "user/b"), "user/b");
    }
}
