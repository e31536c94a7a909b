//! The OpenAPI 3.1 document: paths from the table of routes, schemas from the model's types.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use weir_model::{
    AppSpec, ChangePolicySpec, ChangeRecordSpec, ChangeSpec, CheckSpec, EncryptionSpec, FreezeSpec, InstanceSpec, Kind,
    Metadata, ReleaseSpec, ReleaseTrainSpec, RouteSpec, SloSpec, Spec, TokenSpec, UnitSpec, WorkloadSpec,
};

use crate::endpoints::{self, Endpoint, Topic};
use crate::error::ErrorBody;
use crate::gate::Access;

/// The document of this API.
pub fn document(version: &str) -> Value {
    let mut paths = Map::new();
    for endpoint in endpoints::all() {
        for (path, kind) in expanded(&endpoint) {
            let operations = paths.entry(path).or_insert_with(|| json!({}));
            operations[endpoint.method.as_str().to_ascii_lowercase()] = operation(&endpoint, kind);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Weir",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Resources of the mesh, in the manner of Kubernetes.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

/// A path about resources stands for one path of each kind.
fn expanded(endpoint: &Endpoint) -> Vec<(String, Option<Kind>)> {
    if !endpoint.path.contains("{plural}") {
        return vec![(endpoint.path.to_owned(), None)];
    }
    Kind::ALL.into_iter().map(|kind| (endpoint.path.replace("{plural}", kind.plural()), Some(kind))).collect()
}

fn operation(endpoint: &Endpoint, kind: Option<Kind>) -> Value {
    let plural = kind.map(Kind::plural).unwrap_or_default();
    let mut operation = json!({
        "operationId": format!("{}{}", endpoint.operation, kind.map(Kind::name).unwrap_or_default()),
        "summary": endpoint.summary.replace("{plural}", plural),
        "tags": [kind.map_or("weir", Kind::name)],
        "parameters": parameters(endpoint),
        "responses": responses(endpoint, kind),
    });
    let about = kind.or((endpoint.topic == Topic::Preview).then_some(Kind::Change));
    if let Some(body) = about.and_then(|kind| request_body(endpoint.topic, kind)) {
        operation["requestBody"] = body;
    }
    if endpoint.access == Access::Open {
        operation["security"] = json!([]);
    }
    operation
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let named = ["kind", "name"].into_iter().filter(|name| endpoint.path.contains(&format!("{{{name}}}")));
    let path = named.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let query = |(name, r#type, description): &(&str, &str, &str)| json!({"name": name, "in": "query", "description": description, "schema": {"type": r#type}});
    path.chain(query_parameters(endpoint.topic).iter().map(query)).collect()
}

/// Name, type, description of what each topic's query takes.
fn query_parameters(topic: Topic) -> &'static [(&'static str, &'static str, &'static str)] {
    const DRY_RUN: (&str, &str, &str) = ("dryRun", "boolean", "Check everything, write nothing");
    const REASON: (&str, &str, &str) = ("reason", "string", "Why, for the audit log; or the header X-Weir-Reason");
    match topic {
        Topic::List => &[
            ("labelSelector", "string", "Only with these labels: key=value, comma between"),
            ("prefix", "string", "Only names that begin so"),
            ("limit", "integer", "Largest number of items, 1 to 1000"),
            ("continue", "string", "metadata.continue of the page before"),
            ("watch", "boolean", "Follow changes, one JSON object a line"),
            ("resourceVersion", "integer", "Watch: only changes after it; without it the state comes first"),
            ("timeoutSeconds", "integer", "Watch: end after this long, at most 3600"),
        ],
        Topic::Read => &[
            ("watch", "boolean", "Follow changes, one JSON object a line"),
            ("resourceVersion", "integer", "Watch: only changes after it; without it the state comes first"),
            ("timeoutSeconds", "integer", "Watch: end after this long, at most 3600"),
        ],
        Topic::Create | Topic::Replace => &[DRY_RUN, REASON],
        Topic::Patch => {
            &[DRY_RUN, REASON, ("apply", "boolean", "The body is the whole wanted text; creates if missing")]
        }
        Topic::Delete => &[
            DRY_RUN,
            REASON,
            ("resourceVersion", "integer", "Only if it is still at this version"),
            (
                "force",
                "boolean",
                "Delete the record of an instance that Weir runs at once, without letting it leave first",
            ),
        ],
        Topic::Records => {
            &[("about", "string", "Only of this resource: KIND/NAME"), ("limit", "integer", "The newest so many")]
        }
        Topic::Plain | Topic::Preview => &[],
    }
}

fn request_body(topic: Topic, kind: Kind) -> Option<Value> {
    let schema = reference(kind.name());
    match topic {
        Topic::Create | Topic::Replace | Topic::Preview => {
            let content = json!({"application/json": {"schema": schema}, "application/yaml": {"schema": schema}});
            Some(json!({"required": true, "content": content}))
        }
        Topic::Patch => {
            let part = json!({"schema": {"type": "object"}});
            let content =
                json!({"application/merge-patch+json": part, "application/json": part, "application/yaml": part});
            Some(json!({"required": true, "content": content}))
        }
        _ => None,
    }
}

fn responses(endpoint: &Endpoint, kind: Option<Kind>) -> Value {
    let schema = match (endpoint.topic, kind) {
        (Topic::List, Some(kind)) => reference(&format!("{kind}List")),
        (_, Some(kind)) => reference(kind.name()),
        (_, None) => json!({}),
    };
    let media = if endpoint.operation == "metrics" { "text/plain" } else { "application/json" };
    let code = if endpoint.topic == Topic::Create { "201" } else { "200" };
    let mut responses = json!({"default": {
        "description": "What is wrong, where, and what to do",
        "content": {"application/json": {"schema": reference("Error")}},
    }});
    responses[code] = json!({"description": "Done", "content": {media: {"schema": schema}}});
    responses
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn schemas() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut own = Map::new();
    resource::<AppSpec>(&mut generator, &mut own);
    resource::<UnitSpec>(&mut generator, &mut own);
    resource::<InstanceSpec>(&mut generator, &mut own);
    resource::<RouteSpec>(&mut generator, &mut own);
    resource::<WorkloadSpec>(&mut generator, &mut own);
    resource::<FreezeSpec>(&mut generator, &mut own);
    resource::<ChangeSpec>(&mut generator, &mut own);
    resource::<ChangeRecordSpec>(&mut generator, &mut own);
    resource::<ReleaseSpec>(&mut generator, &mut own);
    resource::<ReleaseTrainSpec>(&mut generator, &mut own);
    resource::<ChangePolicySpec>(&mut generator, &mut own);
    resource::<EncryptionSpec>(&mut generator, &mut own);
    resource::<CheckSpec>(&mut generator, &mut own);
    resource::<SloSpec>(&mut generator, &mut own);
    resource::<TokenSpec>(&mut generator, &mut own);
    generator.subschema_for::<ErrorBody>();
    own.extend(generator.take_definitions(true));
    own
}

/// The envelope of a kind, and its list.
fn resource<S: Spec>(generator: &mut SchemaGenerator, own: &mut Map<String, Value>) {
    let kind = S::KIND;
    let (metadata, spec) = (generator.subschema_for::<Metadata>(), generator.subschema_for::<S>());
    let status = generator.subschema_for::<S::Status>();
    let envelope =
        |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    let properties = json!({
        "apiVersion": {"const": weir_model::API_VERSION},
        "kind": {"const": kind},
        "metadata": metadata,
        "spec": spec,
        "status": status,
    });
    own.insert(kind.name().to_owned(), envelope(properties, json!(["apiVersion", "kind", "metadata"])));
    let list = json!({
        "apiVersion": {"const": weir_model::API_VERSION},
        "kind": {"const": format!("{kind}List")},
        "metadata": {
            "type": "object",
            "properties": {"resourceVersion": {"type": "integer"}, "continue": {"type": ["string", "null"]}},
        },
        "items": {"type": "array", "items": reference(kind.name())},
    });
    own.insert(format!("{kind}List"), envelope(list, json!(["apiVersion", "kind", "metadata", "items"])));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_its_schemas() {
        let schemas = schemas();
        for kind in Kind::ALL {
            assert!(schemas.contains_key(kind.name()), "{kind}");
            assert!(schemas.contains_key(&format!("{kind}List")), "{kind}List");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document("0");
        let mut references = BTreeSet::new();
        collect(&document, &mut references);
        for reference in references {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
    }

    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|v| collect(v, found));
            }
            Value::Array(items) => items.iter().for_each(|v| collect(v, found)),
            _ => {}
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let document = document("0");
        let mut seen = BTreeSet::new();
        for operation in document["paths"].as_object().unwrap().values().flat_map(|p| p.as_object().unwrap().values()) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(seen.insert(id.to_owned()), "{id} twice");
        }
    }
}
