//! What a file may say, for people: the tables of `docs/configuration.md`.

use std::fmt::Write;

use serde_json::{Map, Value};

/// The tables of the reference, in Markdown.
pub(super) fn markdown() -> String {
    let schema = super::schema::value();
    let mut out = String::new();
    for table in ["proxy", "control", "listener", "backend", "farm", "route", "limit", "identity", "auth"] {
        let property = &schema["properties"][table];
        let is_list = property["type"] == "array";
        let (open, close) = if is_list { ("[[", "]]") } else { ("[", "]") };
        let _ = writeln!(out, "\n## `{open}{table}{close}`\n\n{}\n", text(property, &schema));
        keys(&mut out, definition(property, &schema), &schema);
    }
    out
}

/// The inner tables come after the one that they belong to.
fn keys(out: &mut String, table: &Value, schema: &Value) {
    let _ = writeln!(out, "| key | value | default | |\n|---|---|---|---|");
    let mut inner = Vec::new();
    let empty = Map::new();
    let required = |key: &str| table["required"].as_array().is_some_and(|r| r.iter().any(|k| k == key));
    for (key, property) in table["properties"].as_object().unwrap_or(&empty) {
        let target = definition(property, schema);
        if target["properties"].is_object() {
            inner.push((key, target));
        }
        let default = match &property["default"] {
            _ if required(key) => "needed".to_owned(),
            Value::Null | Value::Object(_) => String::new(),
            Value::String(text) if text.is_empty() => String::new(),
            value => format!("`{value}`"),
        };
        let _ = writeln!(
            out,
            "| `{key}` | {} | {default} | {} |",
            kind(property, schema),
            text(property, schema)
        );
    }
    for (key, target) in inner {
        let _ = writeln!(out, "\n`{key} = {{ … }}`:\n");
        keys(out, target, schema);
    }
}

/// What a property refers to: itself, or an entry of the definitions.
fn definition<'a>(property: &'a Value, schema: &'a Value) -> &'a Value {
    let options = property["anyOf"].as_array();
    let chosen = options.and_then(|all| all.iter().find(|o| o["type"] != "null")).unwrap_or(property);
    let chosen = if chosen["type"] == "array" { &chosen["items"] } else { chosen };
    match chosen["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        Some(name) => &schema["$defs"][name],
        None => chosen,
    }
}

fn text(property: &Value, schema: &Value) -> String {
    let own = property["description"].as_str();
    let text = own.or_else(|| definition(property, schema)["description"].as_str()).unwrap_or_default();
    text.replace('\n', " ").replace('|', "\\|")
}

/// What a value looks like, for people.
fn kind(property: &Value, schema: &Value) -> String {
    let target = definition(property, schema);
    let of_one = match target {
        _ if target["properties"].is_object() => "table".to_owned(),
        _ if target["enum"].is_array() || target["oneOf"].is_array() => words(target),
        _ if target["pattern"].is_string() => {
            let name = property["$ref"]
                .as_str()
                .or_else(|| property["anyOf"].as_array()?.iter().find_map(|option| option["$ref"].as_str()));
            name.and_then(|path| path.rsplit('/').next()).unwrap_or("text").to_lowercase()
        }
        _ => match target["type"].as_str().or_else(|| target["type"][0].as_str()) {
            Some("integer") => "number".to_owned(),
            Some("boolean") => "`true`, `false`".to_owned(),
            _ => "text".to_owned(),
        },
    };
    let list = property["type"] == "array" || property["type"][0] == "array";
    if list { format!("list of {of_one}") } else { of_one }
}

fn words(target: &Value) -> String {
    let plain = target["enum"].as_array().into_iter().flatten();
    let described = target["oneOf"].as_array().into_iter().flatten().flat_map(|one| {
        one["const"]
            .as_str()
            .map(|_| &one["const"])
            .into_iter()
            .chain(one["enum"].as_array().into_iter().flatten())
    });
    let words: Vec<String> = plain.chain(described).map(|word| format!("`{word}`")).collect();
    words.join(", ")
}
