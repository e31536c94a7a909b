//! Expressions in the Common Expression Language, bounded: a check must not cost a look of the engine its second.
//!
//! An expression has at most [`weir_model::check::MAX_EXPRESSION`] bytes and is nested [`MAX_NESTING`] deep before it is
//! read, since the reader goes down as deep as the text does (and gets a stack of its own for it). Its lists come from facts of at most
//! [`super::facts::MAX_LIST`] entries, comprehensions (`all`, `exists`, `map`, `filter`) go at most two deep, and inside
//! one nothing is added up or gathered: so neither time nor memory can explode.

use std::collections::HashMap;

use ::cel::common::ast::{EntryExpr, Expr, IdedExpr};
use ::cel::{Context, Program, Value};
use serde_json::Value as Json;
use weir_model::check::MAX_EXPRESSION;

/// Comprehensions inside of each other, or in a row.
const MAX_DEPTH: usize = 2;
/// Brackets inside of each other, and conditions after each other.
const MAX_NESTING: usize = 12;
/// Operators, dots and commas.
const MAX_PARTS: usize = 200;
/// The accumulator of the language's own macros.
const RESULT: &str = "@result";

/// Stack of the thread on which expressions are read: the reader's frames are large, and the engine's own stack is not.
const STACK_BYTES: usize = 64 << 20;

/// The truth of an expression over each of these facts, whose fields are variables of that name.
pub(super) fn evaluate(text: &str, facts: &[Json]) -> Vec<Result<bool, String>> {
    let all = |why: String| facts.iter().map(|_| Err(why.clone())).collect();
    if let Err(why) = shallow(text) {
        return all(why);
    }
    let work = || match read(text) {
        Ok(program) => facts.iter().map(|facts| holds(&program, facts)).collect(),
        Err(why) => all(why),
    };
    on_a_stack_of_its_own(work).unwrap_or_else(all)
}

/// Whether it can be read at all.
pub(super) fn review(text: &str) -> Result<(), String> {
    shallow(text)?;
    on_a_stack_of_its_own(|| read(text).map(drop)).unwrap_or_else(Err)
}

/// What `work` gives, done on a thread with room for the reader.
fn on_a_stack_of_its_own<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cel".to_owned()).stack_size(STACK_BYTES);
        let spawned = thread.spawn_scoped(scope, work).map_err(|error| error.to_string())?;
        spawned.join().map_err(|_| "the expression could not be evaluated".to_owned())
    })
}

fn read(text: &str) -> Result<Program, String> {
    let program = Program::compile(text).map_err(|e| e.to_string())?;
    bounded(program.expression(), 0)?;
    Ok(program)
}

fn holds(program: &Program, facts: &Json) -> Result<bool, String> {
    let mut context = Context::default();
    for (name, value) in facts.as_object().into_iter().flatten() {
        context.add_variable_from_value(name.as_str(), variable(value));
    }
    match program.execute(&context) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(_) => Err("it is neither true nor false".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whole numbers are CEL's `int`, as those that people write in an expression are.
fn variable(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::String(text) => Value::from(text.as_str()),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::Array(items) => Value::from(items.iter().map(variable).collect::<Vec<Value>>()),
        Json::Object(fields) => {
            Value::from(fields.iter().map(|(k, v)| (k.clone(), variable(v))).collect::<HashMap<String, Value>>())
        }
    }
}

/// What is in quotes counts as well: that refuses a few harmless texts, and no harmful one passes.
fn shallow(text: &str) -> Result<(), String> {
    if text.len() > MAX_EXPRESSION {
        return Err(format!("has more than {MAX_EXPRESSION} bytes"));
    }
    let (mut depth, mut conditions, mut parts) = (0_usize, 0, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'?' => conditions += 1,
            b'+' | b'-' | b'*' | b'/' | b'%' | b'!' | b'<' | b'>' | b'=' | b'&' | b'|' | b'.' | b',' => parts += 1,
            _ => {}
        }
        if depth > MAX_NESTING || conditions > MAX_NESTING || parts > MAX_PARTS {
            return Err(format!("is nested more than {MAX_NESTING} deep, or has more than {MAX_PARTS} operators"));
        }
    }
    Ok(())
}

/// Walks the tree; its own depth is bounded by the parser.
fn bounded(node: &IdedExpr, depth: usize) -> Result<(), String> {
    match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Ok(()),
        Expr::Select(select) => bounded(&select.operand, depth),
        Expr::Call(call) => {
            let own = call.args.first().is_some_and(|a| matches!(&a.expr, Expr::Ident(name) if name == RESULT));
            if call.func_name == "_+_" && depth > 0 && !own {
                return Err("adds up inside of a comprehension, which could grow without end".to_owned());
            }
            let mut parts = call.target.iter().map(|t| &**t).chain(&call.args);
            parts.try_for_each(|part| bounded(part, depth))
        }
        Expr::List(list) => {
            if depth > 0 && list.elements.len() > 1 {
                return Err("makes a list inside of a comprehension, which could grow without end".to_owned());
            }
            list.elements.iter().try_for_each(|part| bounded(part, depth))
        }
        Expr::Map(map) => entries(map.entries.iter().map(|e| &e.expr), depth),
        Expr::Struct(made) => entries(made.entries.iter().map(|e| &e.expr), depth),
        Expr::Comprehension(c) if depth < MAX_DEPTH => {
            let parts = [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result];
            parts.into_iter().try_for_each(|part| bounded(part, depth + 1))
        }
        Expr::Comprehension(_) => Err(format!("nests more than {MAX_DEPTH} comprehensions")),
    }
}

fn entries<'e>(mut entries: impl Iterator<Item = &'e EntryExpr>, depth: usize) -> Result<(), String> {
    if depth > 0 {
        return Err("makes a map inside of a comprehension, which could grow without end".to_owned());
    }
    entries.try_for_each(|entry| match entry {
        EntryExpr::StructField(field) => bounded(&field.value, depth),
        EntryExpr::MapEntry(entry) => bounded(&entry.key, depth).and_then(|()| bounded(&entry.value, depth)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn says(text: &str) -> Result<bool, String> {
        let facts = json!({
            "change": {"name": "to-b", "apps": ["order", "stock"], "done": 3, "labels": {"ticket": "T-1"}},
            "batch": {"percent": 5.0, "number": 2},
            "slos": [{"app": "stock", "budgetLeft": 0.4}, {"app": "order", "budgetLeft": 0.9}],
        });
        evaluate(text, &[facts]).remove(0)
    }

    #[test]
    fn facts_are_asked_by_their_names() {
        assert_eq!(says("'stock' in change.apps && batch.percent <= 20.0"), Ok(true));
        assert_eq!(says("slos.all(s, s.budgetLeft > 0.5)"), Ok(false));
        assert_eq!(says("slos.filter(s, s.app == 'stock').exists(s, s.budgetLeft < 0.5)"), Ok(true));
        assert_eq!(says("has(change.labels.ticket) && change.labels.ticket.matches('^T-[0-9]+$')"), Ok(true));
        assert_eq!(says("change.done + 1 == 4"), Ok(true));
    }

    #[test]
    fn what_has_no_truth_is_an_error() {
        for wrong in ["change.name", "nobody.knows", "change.name > 3", "1 +", ""] {
            assert!(says(wrong).is_err(), "{wrong}");
        }
        assert!(review("1 +").is_err() && review("nobody.knows").is_ok(), "only the facts tell what there is");
    }

    #[test]
    fn nothing_can_explode() {
        let refused = |text: &str| says(text).err().unwrap_or_default();
        assert!(refused("slos.map(a, slos.map(b, slos.map(c, c)))").contains("nests"));
        assert!(refused("change.apps.map(a, a + a + a)").contains("adds up"));
        assert!(refused("change.apps.map(a, [a, a, a])").contains("makes a list"));
        assert!(refused("change.apps.map(a, {a: a})").contains("makes a map"));
        assert!(refused(&"(".repeat(1_000)).contains("nested"));
        // As deep as can be read at all.
        for deep in ["1 == 1 ? (", "!", "-", "[", "a.", "a in ", "1 + "] {
            let _either = says(&deep.repeat(MAX_PARTS).chars().take(MAX_PARTS).collect::<String>());
            let _either = says(&format!("{}1", deep.repeat(MAX_NESTING)));
        }
        assert!(refused(&format!("'{}'", "x".repeat(MAX_EXPRESSION))).contains("bytes"));
    }
}
