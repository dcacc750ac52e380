//! What an image is made of, as a `CycloneDX` list: Debian packages, crates, packages of the page. Pure, but for the asking.
//!
//! The list holds no time and no serial number: the same parts give the same bytes.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::closure::Package;
use crate::{
    dirs::Dirs,
    run::{self, Run as _},
};

/// One part. Ordered by kind, name and version, as its address begins so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    purl: String,
    name: String,
    version: String,
    licence: Option<String>,
}

pub(super) fn debian(package: &Package) -> Part {
    let Package { name, architecture, version, source, source_version } = package;
    // `+` and `~` and `:` of versions have a meaning in addresses.
    let escaped = |text: &str| text.replace('%', "%25").replace('+', "%2B").replace(':', "%3A").replace('~', "%7E");
    let upstream = escaped(&format!("{source}@{source_version}")).replace('@', "%40");
    let purl = format!("pkg:deb/debian/{}@{}?arch={architecture}&upstream={upstream}", escaped(name), escaped(version));
    Part { purl, name: name.clone(), version: version.clone(), licence: None }
}

/// Crates that get into the binaries of `package`, in the workspace of `manifest` (relative to the checkout).
pub(super) fn crates(dirs: &Dirs, manifest: &str, package: &str) -> Result<Vec<Part>> {
    let mut cargo = run::cargo(dirs);
    cargo.args(["metadata", "--format-version", "1", "--filter-platform"]).arg(host(dirs)?).arg("--manifest-path");
    let text = cargo.arg(dirs.root().join(manifest)).answer()?;
    let metadata = serde_json::from_str(&text).context("`cargo metadata` printed something else")?;
    linked(&metadata, package).with_context(|| format!("`cargo metadata` of {manifest} has no graph of {package}"))
}

fn rustc(dirs: &Dirs) -> Result<String> {
    Command::new("rustc").current_dir(dirs.root()).arg("-vV").answer()
}

fn host(dirs: &Dirs) -> Result<String> {
    let text = rustc(dirs)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc tells no host")?.to_owned())
}

/// The compiler's own library is in every binary of ours.
pub(super) fn rust(dirs: &Dirs) -> Result<Part> {
    let text = rustc(dirs)?;
    let version = text.lines().find_map(|line| line.strip_prefix("release: ")).context("rustc tells no release")?;
    Ok(Part {
        purl: format!("pkg:generic/rust-std@{version}"),
        name: "rust-std".to_owned(),
        version: version.to_owned(),
        licence: Some("Apache-2.0 OR MIT".to_owned()),
    })
}

fn linked(metadata: &Value, package: &str) -> Option<Vec<Part>> {
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()?
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let nodes: BTreeMap<&str, &Value> =
        metadata["resolve"]["nodes"].as_array()?.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let root = packages.iter().find(|(_, value)| value["name"] == package && value["source"].is_null())?.0;
    let (mut seen, mut todo) = (BTreeSet::new(), vec![*root]);
    while let Some(id) = todo.pop() {
        // A macro runs in the compiler; neither it nor what it needs gets into a binary.
        let is_macro = packages.get(id).is_some_and(|package| is_macro(package));
        if is_macro || !seen.insert(id) {
            continue;
        }
        for dependency in nodes.get(id)?["deps"].as_array()? {
            let normal = dependency["dep_kinds"].as_array()?.iter().any(|kind| kind["kind"].is_null());
            todo.extend(dependency["pkg"].as_str().filter(|_| normal));
        }
    }
    let mut parts: Vec<Part> = seen.iter().filter_map(|id| crate_part(packages.get(id)?)).collect();
    parts.sort();
    Some(parts)
}

fn is_macro(package: &Value) -> bool {
    let kinds =
        |target: &Value| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "proc-macro"));
    package["targets"].as_array().is_some_and(|targets| targets.iter().any(kinds))
}

fn crate_part(package: &Value) -> Option<Part> {
    let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
    // Ours are of this checkout: the image's own version and commit name them.
    let kind = if package["source"].is_null() { "generic/loco" } else { "cargo" };
    Some(Part {
        purl: format!("pkg:{kind}/{name}@{version}"),
        name: name.to_owned(),
        version: version.to_owned(),
        // The old way of writing `OR`.
        licence: package["license"].as_str().map(|licence| licence.replace('/', " OR ")),
    })
}

/// What the page is bundled of.
pub(super) fn page(dirs: &Dirs) -> Result<Vec<Part>> {
    let path = dirs.ui().join("package-lock.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let lock = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
    bundled(&lock).with_context(|| format!("{} lists no packages", path.display()))
}

fn bundled(lock: &Value) -> Option<Vec<Part>> {
    let part = |(path, package): (&String, &Value)| {
        let name = path.rsplit_once("node_modules/")?.1;
        let version = package["version"].as_str()?;
        (package["dev"] != true && package["optional"] != true).then(|| Part {
            purl: format!("pkg:npm/{}@{version}", name.replace('@', "%40")),
            name: name.to_owned(),
            version: version.to_owned(),
            licence: package["license"].as_str().map(str::to_owned),
        })
    };
    Some(lock["packages"].as_object()?.iter().filter_map(part).collect())
}

/// The list itself. Ends with a line break.
pub(super) fn document(image: &str, version: &str, parts: &[Part]) -> String {
    let parts: BTreeSet<&Part> = parts.iter().collect();
    let component = |part: &&Part| {
        let mut component = json!({
            "type": "library", "bom-ref": part.purl, "name": part.name, "version": part.version, "purl": part.purl,
        });
        if let Some(licence) = &part.licence {
            component["licenses"] = json!([{ "expression": licence }]);
        }
        component
    };
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "container", "name": format!("loco/{image}"), "version": version } },
        "components": parts.iter().map(component).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purls(parts: &[Part]) -> Vec<&str> {
        parts.iter().map(|part| part.purl.as_str()).collect()
    }

    #[test]
    fn a_debian_part_has_its_source_and_its_version_in_full() {
        let package = Package {
            name: "libstdc++6".to_owned(),
            architecture: "amd64".to_owned(),
            version: "1:12.2~1".to_owned(),
            source: "gcc-12".to_owned(),
            source_version: "12.2".to_owned(),
        };
        let part = debian(&package);
        assert_eq!(part.purl, "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2%7E1?arch=amd64&upstream=gcc-12%4012.2");
        assert_eq!(part.version, "1:12.2~1");
    }

    #[test]
    fn only_what_is_linked_counts() {
        let package = |name: &str, kind: &str, source: Option<&str>| {
            json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": source,
                    "targets": [{ "kind": [kind] }] })
        };
        let dep = |name: &str, kind: Option<&str>| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let node = |name: &str, deps: Vec<Value>| json!({ "id": name, "deps": deps });
        let registry = Some("registry");
        let metadata = json!({
            "packages": [
                package("gateway", "bin", None), package("api", "lib", None), package("axum", "lib", registry),
                package("derive", "proc-macro", registry), package("syn", "lib", registry),
                package("cc", "lib", registry), package("proptest", "lib", registry), package("gst", "lib", registry),
            ],
            "resolve": { "nodes": [
                node("gateway", vec![dep("api", None), dep("axum", None), dep("cc", Some("build")), dep("proptest", Some("dev"))]),
                node("api", vec![dep("derive", None)]), node("derive", vec![dep("syn", None)]),
                node("axum", vec![dep("api", None)]), node("gst", vec![]),
            ] },
        });
        let parts = linked(&metadata, "gateway").unwrap();
        assert_eq!(
            purls(&parts),
            ["pkg:cargo/axum@1.0.0", "pkg:generic/loco/api@1.0.0", "pkg:generic/loco/gateway@1.0.0"]
        );
        assert_eq!(parts[0].licence.as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(linked(&metadata, "nothing"), None);
    }

    #[test]
    fn the_page_is_what_its_tools_are_not() {
        let lock = json!({ "packages": {
            "": { "version": "0" },
            "node_modules/react": { "version": "19.0.0", "license": "MIT" },
            "node_modules/@scope/part": { "version": "1.0.0" },
            "node_modules/vite": { "version": "7.0.0", "dev": true },
        } });
        let mut parts = bundled(&lock).unwrap();
        parts.sort();
        assert_eq!(purls(&parts), ["pkg:npm/%40scope/part@1.0.0", "pkg:npm/react@19.0.0"]);
    }

    #[test]
    fn a_list_is_the_same_whatever_the_order_and_names_nothing_twice() {
        let part = |name: &str| Part {
            purl: format!("pkg:cargo/{name}@1"),
            name: name.to_owned(),
            version: "1".to_owned(),
            licence: None,
        };
        let one = document("gateway", "0.1.0", &[part("b"), part("a")]);
        assert_eq!(one, document("gateway", "0.1.0", &[part("a"), part("b"), part("a")]));
        let value: Value = serde_json::from_str(&one).unwrap();
        assert_eq!(value["components"].as_array().unwrap().len(), 2);
        assert_eq!(value["metadata"]["component"]["name"], "loco/gateway");
    }
}
