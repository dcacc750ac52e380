//! What is written from the values: `values.schema.json` and the table in the chart's README. Pure.
//!
//! **Invariant:** at every level of ours the schema refuses keys that it does not name: a misspelt value is an error, not a
//! silent default.
use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::values::Entry;

const BEGIN: &str = "<!-- values: written by `cargo xtask chart` from values.yaml -->";
const END: &str = "<!-- end of values -->";

/// The schema as a file: draft 7, which every Helm 3 knows.
pub(super) fn schema(entries: &[Entry]) -> String {
    let mut root = object(entries, &[]);
    root.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    root.insert("title".to_owned(), json!("Values of the chart loco"));
    if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
        // Helm's own, given to every chart that another includes.
        properties.insert("global".to_owned(), json!({"type": "object"}));
    }
    let mut text = serde_json::to_string_pretty(&Value::Object(root)).unwrap_or_default();
    text.push('\n');
    text
}

fn object(entries: &[Entry], path: &[String]) -> Map<String, Value> {
    let children = entries.iter().filter(|entry| entry.path.len() == path.len() + 1 && entry.path.starts_with(path));
    let in_list = path.last().is_some_and(|last| last == "[]");
    let mut properties = Map::new();
    let mut required = Vec::new();
    for child in children {
        let Some(name) = child.path.last() else { continue };
        properties.insert(name.clone(), Value::Object(one(entries, child)));
        if in_list && !child.optional {
            required.push(json!(name));
        }
    }
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".to_owned(), Value::Array(required));
    }
    schema
}

fn one(entries: &[Entry], entry: &Entry) -> Map<String, Value> {
    let typed = |kind: &str| Map::from_iter([("type".to_owned(), json!(kind))]);
    let mut schema = match (&entry.open, &entry.default) {
        (Some(kind), _) => typed(kind),
        (None, Value::Object(_)) => object(entries, &entry.path),
        (None, Value::Array(_)) => {
            let item: Vec<String> = entry.path.iter().cloned().chain(["[]".to_owned()]).collect();
            let mut list = typed("array");
            list.insert("items".to_owned(), Value::Object(object(entries, &item)));
            list
        }
        (None, Value::Bool(_)) => typed("boolean"),
        (None, Value::Number(_)) => typed("integer"),
        (None, _) => typed("string"),
    };
    if !entry.doc.is_empty() {
        schema.insert("description".to_owned(), json!(entry.doc));
    }
    schema.extend(entry.overlay.clone());
    schema
}

/// `readme` with the table between its marks written anew.
pub(super) fn readme(readme: &str, entries: &[Entry]) -> Result<String> {
    let (head, rest) = readme.split_once(BEGIN).with_context(|| format!("it lacks the line `{BEGIN}`"))?;
    let (_, tail) = rest.split_once(END).with_context(|| format!("it lacks the line `{END}`"))?;
    Ok(format!("{head}{BEGIN}\n\n{}\n{END}{tail}", table(entries)))
}

fn table(entries: &[Entry]) -> String {
    let mut text = "| value | default | what |\n|---|---|---|\n".to_owned();
    for entry in entries.iter().filter(|entry| entry.is_leaf()) {
        // A bar would end the cell.
        let cells = [format!("`{}`", entry.dotted()), format!("`{}`", entry.default), entry.doc.replace('|', "\\|")];
        text.push_str("| ");
        text.push_str(&cells.join(" | "));
        text.push_str(" |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::values, *};

    fn entries() -> Vec<Entry> {
        let text = "a:\n  # -- One | two.\n  # @schema {\"minimum\":1}\n  one: 1\n  # -- Open.\n  # @open object\n  o: {}\n\
                    list:\n    # -- Name.\n  - name: n\n    # -- Level.\n    # @optional\n    level: 2\n";
        values::parse(text).unwrap()
    }

    #[test]
    fn the_schema_refuses_what_it_does_not_name() {
        let schema: Value = serde_json::from_str(&schema(&entries())).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        let a = &schema["properties"]["a"];
        assert_eq!((&a["additionalProperties"], &a["properties"]["one"]["minimum"]), (&json!(false), &json!(1)));
        assert_eq!(a["properties"]["one"]["type"], "integer");
        assert_eq!(a["properties"]["o"], json!({"type": "object", "description": "Open."}));
        let item = &schema["properties"]["list"]["items"];
        assert_eq!((&item["additionalProperties"], &item["required"]), (&json!(false), &json!(["name"])));
    }

    #[test]
    fn the_readme_keeps_what_is_around_the_table() {
        let old = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = readme(&old, &entries()).unwrap();
        assert!(new.starts_with("before\n") && new.ends_with("after\n") && !new.contains("old"), "{new}");
        assert!(
            new.contains("| `a.one` | `1` | One \\| two. |\n") && new.contains("| `list[].level` | `2` | Level. |")
        );
        assert_eq!(readme(&new, &entries()).unwrap(), new);
        assert!(readme("nothing", &entries()).unwrap_err().to_string().contains("lacks"));
    }
}
