//! JSON Merge Patch (RFC 7396), and what changes between two texts of the same resource.

use serde_json::{Map, Value};

/// Applies `patch` to `target` as RFC 7396 says: objects merge, `null` removes, everything else replaces.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let target = target.as_object_mut().expect("made an object above");
    for (key, value) in patch {
        if value.is_null() {
            target.shift_remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The merge patch of an apply: sets what `wanted` says, removes what `last` (the text applied before) said and
/// `wanted` no longer does, and leaves alone what neither mentions, e.g. fields that controllers write.
pub(crate) fn three_way(last: &Value, wanted: &Value) -> Value {
    let (Value::Object(last), Value::Object(new)) = (last, wanted) else {
        return wanted.clone();
    };
    let gone = last.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let nothing = Value::Null;
    let kept = new.iter().map(|(key, value)| (key.clone(), three_way(last.get(key).unwrap_or(&nothing), value)));
    Value::Object(gone.chain(kept).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merges_as_the_rfc_says() {
        // The table of RFC 7396, appendix A.
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (mut target, patch, wanted) in cases {
            let what = format!("{target} + {patch}");
            merge(&mut target, &patch);
            assert_eq!(target, wanted, "{what}");
        }
    }

    #[test]
    fn applying_removes_only_what_was_applied_before() {
        let last = json!({"owner": "pay", "tier": 2});
        let wanted = json!({"owner": "pay"});
        let mut stored = json!({"owner": "pay", "tier": 2, "timeoutMs": 100});
        merge(&mut stored, &three_way(&last, &wanted));
        assert_eq!(stored, json!({"owner": "pay", "timeoutMs": 100}));
    }
}
