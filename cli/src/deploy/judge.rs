//! What the output of a command shows. Pure.
use std::collections::BTreeMap;

use serde_json::Value;

use super::plan::Image;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expect {
    /// That it ends with exit code 0.
    Success,
    /// That it has nothing to tell.
    Nothing,
    /// A line that is exactly this.
    Line(String),
    /// `kubectl get nodes`: at least one, all ready, all able to run the images.
    NodesReady { architecture: &'static str },
    /// `crictl inspecti`: the image's id.
    CrictlHas { id: String },
    /// `ctr images list`: the name and the id stand for the same content.
    CtrHas { reference: String, id: String },
    /// `kubectl get pods`: every container of ours runs one of these images, and is ready.
    Running { images: Vec<Image> },
}

/// A few words on what holds; or why it does not.
pub(crate) fn judge(expect: &Expect, output: &str) -> Result<String, String> {
    match expect {
        Expect::Success => Ok(String::new()),
        Expect::Nothing if output.trim().is_empty() => Ok(String::new()),
        Expect::Nothing => Err(format!("there is {}", output.split_whitespace().collect::<Vec<_>>().join(" "))),
        Expect::Line(line) if output.lines().any(|is| is.trim() == line) => Ok(String::new()),
        Expect::Line(line) => {
            Err(format!("`{line}` is not in: {}", output.split_whitespace().collect::<Vec<_>>().join(" ")))
        }
        Expect::NodesReady { architecture } => nodes(output, architecture).map(|names| names.join(", ")),
        Expect::CrictlHas { id } => crictl(output, id),
        Expect::CtrHas { reference, id } => ctr(output, reference, id),
        Expect::Running { images } => running(output, images),
    }
}

fn json(output: &str) -> Result<Value, String> {
    serde_json::from_str(output).map_err(|error| format!("that is no JSON: {error}"))
}

fn items(value: &Value) -> Result<&Vec<Value>, String> {
    value["items"].as_array().ok_or_else(|| "that is no list of Kubernetes".to_owned())
}

/// Names of the nodes, which are all ready and of this architecture.
pub(crate) fn nodes(output: &str, architecture: &str) -> Result<Vec<String>, String> {
    let value = json(output)?;
    let mut names = Vec::new();
    for node in items(&value)? {
        let name = node["metadata"]["name"].as_str().ok_or("a node without a name")?;
        let ready = node["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = ready.filter(|condition| condition["type"] == "Ready");
        if ready.next().is_none_or(|condition| condition["status"] != "True") {
            return Err(format!("node {name} is not ready"));
        }
        let info = &node["status"]["nodeInfo"];
        if info["operatingSystem"] != "linux" || info["architecture"] != architecture {
            return Err(format!(
                "node {name} is {}/{}, and the images built here are linux/{architecture}",
                info["operatingSystem"].as_str().unwrap_or("?"),
                info["architecture"].as_str().unwrap_or("?")
            ));
        }
        names.push(name.to_owned());
    }
    if names.is_empty() { Err("the cluster has no nodes".to_owned()) } else { Ok(names) }
}

fn crictl(output: &str, id: &str) -> Result<String, String> {
    let value = json(output)?;
    match value["status"]["id"].as_str() {
        Some(has) if has == id => Ok(String::new()),
        Some(has) => Err(format!("the node has another image of that name: {has}, and {id} was built")),
        None => Err("the node does not have the image".to_owned()),
    }
}

/// containerd's Kubernetes side names each image by its id, too; both names must lead to the same manifest.
fn ctr(output: &str, reference: &str, id: &str) -> Result<String, String> {
    let rows: BTreeMap<&str, &str> = output
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            Some((columns.next()?, columns.nth(1)?))
        })
        .collect();
    match (rows.get(reference), rows.get(id)) {
        (None, _) => Err("the node does not have the image".to_owned()),
        (Some(_), None) => Err(format!("the node has another image of that name, not {id}")),
        (Some(named), Some(built)) if named == built => Ok(String::new()),
        (Some(_), Some(_)) => Err(format!("the node has {id}, but under another name; the name is another image's")),
    }
}

fn running(output: &str, images: &[Image]) -> Result<String, String> {
    let value = json(output)?;
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in items(&value)? {
        let name = pod["metadata"]["name"].as_str().unwrap_or("?");
        // Those on their way out, and those that run no more; the rollouts before have counted the others.
        let ended = pod["status"]["phase"].as_str().is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase));
        if ended || !pod["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        for kind in ["initContainers", "containers"] {
            for container in pod["spec"][kind].as_array().into_iter().flatten() {
                let reference = container["image"].as_str().unwrap_or("?");
                // Not every container is ours: a service mesh may add its own.
                let Some((_, rest)) = reference.split_once("/loco/") else { continue };
                let short = rest.split([':', '@']).next().unwrap_or(rest);
                let image = images.iter().find(|image| image.reference == reference);
                let image = image.ok_or_else(|| format!("pod {name} runs {reference}, which was not built now"))?;
                let statuses = pod["status"][format!("{}Statuses", kind.trim_end_matches('s'))].as_array();
                let status = statuses.into_iter().flatten().find(|status| status["name"] == container["name"]);
                let status = status.ok_or_else(|| format!("pod {name} has not started"))?;
                if kind == "containers" && status["ready"] != true {
                    return Err(format!("pod {name} is not ready"));
                }
                same_content(image, status["imageID"].as_str().unwrap_or_default())
                    .map_err(|why| format!("pod {name}: {why}"))?;
                *seen.entry(image_name(images, short)).or_default() += 1;
            }
        }
    }
    for must in ["node-agent", "gateway"] {
        if !seen.contains_key(must) {
            return Err(format!("no pod of {must} is there"));
        }
    }
    Ok(seen.iter().map(|(name, count)| format!("{count} × {name}")).collect::<Vec<_>>().join(", "))
}

fn image_name<'a>(images: &'a [Image], short: &str) -> &'a str {
    images.iter().map(|image| image.name.as_str()).find(|name| *name == short).unwrap_or("other")
}

/// Runtimes tell an id, or the digest of a manifest. That of an image that was loaded and not pushed is of their own making:
/// then the name says it all, as the tag holds a hash of the content, and the node was asked what the name stands for.
fn same_content(image: &Image, runs: &str) -> Result<(), String> {
    let hash = runs.rsplit_once('@').map_or(runs, |(_, digest)| digest);
    let is_manifest = runs.contains('@');
    let fine = hash == image.id || (is_manifest && image.digest.as_deref().is_none_or(|digest| digest == hash));
    if fine { Ok(()) } else { Err(format!("{} is {runs} there, and {} was built", image.reference, image.id)) }
}

/// Pods whose image cannot be had, from `kubectl get pods`.
pub(crate) fn stuck(output: &str) -> Result<Vec<String>, String> {
    const HOPELESS: [&str; 4] = ["ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"];
    let value = json(output)?;
    let hopeless = |pod: &&Value| {
        let statuses = ["initContainerStatuses", "containerStatuses"].map(|kind| pod["status"][kind].as_array());
        statuses.into_iter().flatten().flatten().any(|status| {
            status["state"]["waiting"]["reason"].as_str().is_some_and(|reason| HOPELESS.contains(&reason))
        })
    };
    let pods = items(&value)?.iter().filter(hopeless);
    Ok(pods.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

/// The images of `cargo xtask image`, which prints one line of JSON for each.
pub(crate) fn built(output: &str, names: &[&str]) -> Result<Vec<Image>, String> {
    let mut images = Vec::new();
    for line in output.lines().filter(|line| line.starts_with('{')) {
        let value = json(line)?;
        let text = |key: &str| value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no `{key}` in {line}"));
        images.push(Image {
            name: text("name")?,
            reference: text("ref")?,
            id: text("id")?,
            tar: text("tar")?.into(),
            digest: value["digest"].as_str().map(str::to_owned),
        });
    }
    let tag = |image: &Image| image.reference.rsplit_once(':').map(|(_, tag)| tag.to_owned());
    let tags: Vec<_> = images.iter().map(tag).collect();
    if let Some(missing) = names.iter().find(|name| images.iter().all(|image| image.name != **name)) {
        return Err(format!("the image {missing} was not built"));
    }
    if tags.iter().any(|tag| tag.is_none() || *tag != tags[0] || tag.as_deref() == Some("latest")) {
        return Err(format!("the images do not have one tag of their own: {tags:?}"));
    }
    Ok(images)
}
