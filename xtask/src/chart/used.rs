//! Values that no template uses, and uses of values that there are not. Pure.
//!
//! A value counts as used where a template names it in full (`.Values.agent.slots`), or names its group in `with` or `range` and
//! the rest after it in the same file (`with .Values.agent.ipxRelay`, then `.port`).
use super::values::Entry;

/// A template: its path for messages, and its text.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) path: String,
    pub(super) text: String,
}

pub(super) fn complaints(entries: &[Entry], templates: &[Template]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| entry.is_leaf()) {
        if !templates.iter().any(|template| uses(template, &entry.path)) {
            found.push(format!(
                "charts/loco/values.yaml: no template uses `{}`; use it, or take it out",
                entry.dotted()
            ));
        }
    }
    for template in templates {
        for path in named(&template.text) {
            if !entries.iter().any(|entry| leads_to(entry, &path)) {
                found.push(format!(
                    "{} uses .Values.{}, which values.yaml does not have",
                    template.path,
                    path.join(".")
                ));
            }
        }
    }
    found
}

/// `path` is the entry's, or below one that is passed through as it is.
fn leads_to(entry: &Entry, path: &[String]) -> bool {
    entry.path == path || (entry.open.is_some() && path.starts_with(&entry.path))
}

fn uses(template: &Template, path: &[String]) -> bool {
    let full = path.join(".");
    if named(&template.text).any(|found| found.join(".") == full) {
        return true;
    }
    (1..path.len()).any(|at| {
        let (group, rest) = path.split_at(at);
        let opened = blocks(&template.text).any(|found| found == group);
        let rest: Vec<&str> = rest.iter().map(String::as_str).filter(|key| *key != "[]").collect();
        opened && mentions(&template.text, &format!(".{}", rest.join(".")))
    })
}

/// Every `.Values.a.b` of a text, as `[a, b]`.
fn named(text: &str) -> impl Iterator<Item = Vec<String>> {
    text.split(".Values.").skip(1).map(path_at)
}

/// Of every `with` and `range`, the group that it opens.
fn blocks(text: &str) -> impl Iterator<Item = Vec<String>> {
    let opens = |before: &str| {
        let tag = before.rsplit("{{").next().unwrap_or(before);
        tag.contains("with ") || tag.contains("range ")
    };
    let starts = text.match_indices(".Values.");
    starts.filter(move |(at, _)| opens(&text[..*at])).map(|(at, word)| path_at(&text[at + word.len()..]))
}

fn path_at(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_').unwrap_or(text.len());
    text[..end].trim_end_matches('.').split('.').map(str::to_owned).collect()
}

/// `name` as a whole word, of the dot or of a variable: ` .port`, `$lan.vni`, not `.Values.port`.
fn mentions(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let after = text[at + name.len()..].chars().next();
        let whole = after.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
        let word = text[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '$' && c != '.').next();
        whole && word.is_some_and(|word| word.is_empty() || (word.starts_with('$') && !word.contains('.')))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::values, *};

    const VALUES: &str = "a:\n  # -- B.\n  b: 1\n  # -- C.\n  # @open object\n  c: {}\n\
                          list:\n    # -- N.\n  - n: 1\n";

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let entries = values::parse(VALUES).unwrap();
        let found = complaints(&entries, &[Template { path: "t.yaml".into(), text: text.into() }]);
        assert_eq!(found.len(), want.len(), "{found:?}");
        for (found, want) in found.iter().zip(want) {
            assert!(found.contains(want), "{found} / {want}");
        }
    }

    #[test]
    fn unused_and_unknown_values_are_named() {
        check(
            "{{ .Values.a.b }}{{ $.Values.a.c.deeper }}{{ toYaml .Values.a.c }}{{ range .Values.list }}{{ .n }}",
            &[],
        );
        check(
            "{{ with .Values.a }}{{ .b }}{{ toYaml .c }}{{ end }}{{ range $i, $x := .Values.list }}{{ $x.n }}",
            &["t.yaml uses .Values.a"].repeat(0),
        );
        check("{{ .Values.a.b }}{{ range .Values.list }}{{ .n }}", &["no template uses `a.c`"]);
        check("{{ .Values.a.b }}{{ .Values.a.c }}{{ .n }}", &["no template uses `list[].n`"]);
        check("{{ .Values.a.bb }}{{ .Values.a.c }}{{ range .Values.list }}{{ .n }}", &["`a.b`", "uses .Values.a.bb"]);
    }
}
