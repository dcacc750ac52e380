//! `values.yaml` with its comments: every value that is ours, what is said of it, and what Kubernetes may be passed through.
//!
//! Pure: text in, values out. A YAML library reads the values; comments, which it does not know, are read by line, and both
//! must have seen the same keys.
//!
//! ```text
//! # -- TEXT       what the value is; goes on in the comment lines that follow
//! # @schema JSON  laid over the schema that the default implies
//! # @open TYPE    Kubernetes' own: `object` or `array`, passed through as it is
//! # @optional     in an item of a list: may be left out
//! ```
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};

/// A key of `values.yaml`. `[]` in a path: an item of the list before it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) path: Vec<String>,
    pub(super) doc: String,
    /// Laid over the schema that the default implies.
    pub(super) overlay: Map<String, Value>,
    /// Kubernetes' own: its JSON type. Nothing below it is ours.
    pub(super) open: Option<String>,
    pub(super) optional: bool,
    pub(super) default: Value,
}

impl Entry {
    /// `lans[].vni`
    pub(super) fn dotted(&self) -> String {
        dotted(&self.path)
    }

    /// A value, and not a group of them.
    pub(super) fn is_leaf(&self) -> bool {
        self.open.is_some() || !matches!(self.default, Value::Object(_) | Value::Array(_))
    }
}

pub(super) fn dotted(path: &[String]) -> String {
    path.join(".").replace(".[]", "[]")
}

#[derive(Debug, Default)]
struct Comment {
    doc: String,
    overlay: Map<String, Value>,
    open: Option<String>,
    optional: bool,
}

/// All keys in the order of the file, groups before what is in them.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>> {
    let whole: Value = serde_saphyr::from_str(text).context("it is not valid YAML")?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut comment = Comment::default();
    // Indentation and path of the groups that the line is in, innermost last.
    let mut groups: Vec<(usize, Vec<String>)> = Vec::new();
    let mut inside_open: Option<usize> = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let trimmed = line.trim_start();
        let mut indent = line.len() - trimmed.len();
        if inside_open.is_some_and(|open| indent > open && !trimmed.is_empty()) {
            continue;
        }
        if trimmed.is_empty() {
            comment = Comment::default();
            continue;
        }
        if let Some(said) = trimmed.strip_prefix('#') {
            comment.add(said.trim()).with_context(|| format!("line {number}"))?;
            continue;
        }
        let item = trimmed.strip_prefix("- ");
        if item.is_some() {
            indent += 2;
        }
        let (key, _) = item.unwrap_or(trimmed).split_once(':').with_context(|| {
            format!("line {number} is no `key: value`; a value that is Kubernetes' own needs @open")
        })?;
        inside_open = None;
        groups.retain(|(outer, _)| *outer < indent);
        let mut path = groups.last().map(|(_, path)| path.clone()).unwrap_or_default();
        let in_list = path.last().is_some_and(|_| look_up(&whole, &path).is_some_and(Value::is_array));
        if in_list {
            path.push("[]".to_owned());
        }
        let group = path.clone();
        path.push(key.to_owned());
        let default = look_up(&whole, &path)
            .with_context(|| format!("line {number}: {} is not where the YAML has it", dotted(&path)))?
            .clone();
        let Comment { doc, overlay, open, optional } = std::mem::take(&mut comment);
        if open.is_some() {
            inside_open = Some(indent);
        } else if default.is_object() || default.is_array() {
            ensure!(
                default != Value::Array(vec![]) && default != Value::Object(Map::new()),
                "line {number}: {key} is empty, so nothing is known of it; add `# @open object` or `# @open array`"
            );
            groups.push((indent, path.clone()));
        }
        if in_list && item.is_some() {
            // Siblings of the item's first key are found in it.
            groups.push((indent - 1, group));
        }
        entries.push(Entry { path, doc, overlay, open, optional, default });
    }
    check(&whole, &entries)?;
    Ok(entries)
}

impl Comment {
    fn add(&mut self, line: &str) -> Result<()> {
        if let Some(text) = line.strip_prefix("-- ") {
            text.clone_into(&mut self.doc);
        } else if let Some(json) = line.strip_prefix("@schema ") {
            let overlay: Map<String, Value> =
                serde_json::from_str(json).context("after @schema comes a JSON object")?;
            self.overlay.extend(overlay);
        } else if let Some(kind) = line.strip_prefix("@open ") {
            ensure!(matches!(kind, "object" | "array"), "after @open comes `object` or `array`, not `{kind}`");
            self.open = Some(kind.to_owned());
        } else if line == "@optional" {
            self.optional = true;
        } else if line.starts_with('@') {
            bail!("`{line}` is unknown; there are @schema, @open and @optional");
        } else if !self.doc.is_empty() {
            self.doc.push(' ');
            self.doc.push_str(line);
        }
        Ok(())
    }
}

/// `[]` is the first item: its keys stand for those of all.
fn look_up<'a>(whole: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(whole, |value, key| if key == "[]" { value.get(0) } else { value.get(key) })
}

/// The lines have told of every key that the YAML has, and each is described.
fn check(whole: &Value, entries: &[Entry]) -> Result<()> {
    let mut known: Vec<Vec<String>> = Vec::new();
    keys(whole, &mut Vec::new(), entries, &mut known);
    let told: Vec<Vec<String>> = entries.iter().map(|entry| entry.path.clone()).collect();
    for path in &known {
        ensure!(told.contains(path), "{} was not found line by line; write one `key: value` a line", dotted(path));
    }
    ensure!(known.len() == told.len(), "a key occurs twice");
    for entry in entries {
        ensure!(!entry.is_leaf() || !entry.doc.is_empty(), "{} is not described; add `# -- TEXT`", entry.dotted());
        ensure!(
            !entry.default.is_null(),
            "{} has no value, so no type; give the empty one of its type",
            entry.dotted()
        );
    }
    Ok(())
}

fn keys(value: &Value, path: &mut Vec<String>, entries: &[Entry], known: &mut Vec<Vec<String>>) {
    if entries.iter().any(|entry| entry.path == *path && entry.open.is_some()) {
        return;
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                path.push(key.clone());
                known.push(path.clone());
                keys(value, path, entries, known);
                path.pop();
            }
        }
        Value::Array(items) => {
            path.push("[]".to_owned());
            if let Some(first) = items.first() {
                keys(first, path, entries, known);
            }
            path.pop();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A group.
a:
  # -- First,
  # and more.
  # @schema {\"minimum\":1}
  one: 1
  # -- Passed through.
  # @open object
  two:
    x: y
    z: {}
  # -- Three.
  three: \"\"
list:
    # -- Name.
  - name: n
    # -- Level.
    # @optional
    level: 2
# -- Last.
z: true
";

    fn paths(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(Entry::dotted).collect()
    }

    #[test]
    fn keys_comments_and_defaults_are_read() {
        let entries = parse(TEXT).unwrap();
        assert_eq!(paths(&entries), ["a", "a.one", "a.two", "a.three", "list", "list[].name", "list[].level", "z"]);
        assert_eq!((entries[1].doc.as_str(), &entries[1].default), ("First, and more.", &Value::from(1)));
        assert_eq!(entries[1].overlay["minimum"], 1);
        assert_eq!(entries[2].open.as_deref(), Some("object"));
        assert!(entries[6].optional && !entries[5].optional && entries[7].is_leaf() && !entries[0].is_leaf());
    }

    #[track_caller]
    fn refuses(text: &str, want: &str) {
        let error = format!("{:#}", parse(text).unwrap_err());
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn what_is_not_described_or_not_understood_is_named() {
        refuses(&TEXT.replace("  # -- Three.\n", ""), "a.three is not described");
        refuses(&TEXT.replace("  # @open object\n", ""), "z is empty");
        refuses(&TEXT.replace("@optional", "@maybe"), "`@maybe` is unknown");
        refuses(&TEXT.replace("@open object", "@open map"), "`object` or `array`, not `map`");
        refuses(&TEXT.replace("{\"minimum\":1}", "{minimum"), "line 5");
        refuses(&TEXT.replace("z: true", "z:"), "z has no value");
        refuses(&TEXT.replace("one: 1", "one: {q: 1}"), "was not found line by line");
        refuses("a: [1", "not valid YAML");
    }
}
