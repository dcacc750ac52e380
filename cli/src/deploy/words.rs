//! A plan, and what came of it, for people. Pure.
use super::plan::{self, Act, Cmd, Image, Options, Step};

/// What stands for what is known only once it runs.
const ANY_NODE: &str = "<node>";

/// The whole plan, with `<…>` for what is not known before.
pub(crate) fn dry(options: &Options, first: &[Step]) -> String {
    let image = |name: &&str| Image {
        name: (*name).to_owned(),
        reference: format!("{}/loco/{name}:<tag>", options.registry),
        id: format!("<id of {name}>"),
        tar: format!("<{name}.tar>").into(),
        digest: None,
    };
    let images: Vec<Image> = options.image_names().iter().map(image).collect();
    let build =
        Step::run("all images are built, under a tag that is a hash of them", options.build(), "see docs/images.md");
    let mut steps = first.to_vec();
    steps.extend(plan::before(options));
    steps.push(build);
    steps.extend(plan::after(options, &[ANY_NODE.to_owned()], &images));
    let lines = steps.iter().enumerate().flat_map(|(number, step)| step_lines(number + 1, step));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn step_lines(number: usize, step: &Step) -> Vec<String> {
    let line = |word: &str, cmd: &Cmd| format!("   {word:7} {}", cmd.line());
    let mut lines = vec![format!("{number}. {}", step.says)];
    lines.extend(step.done.as_ref().map(|done| line("unless", &done.cmd)));
    match &step.act {
        Act::Nothing => {}
        Act::Run(cmd) => lines.push(line("run", cmd)),
        Act::Unstick { list, kubectl } => {
            lines.push(line("look", list));
            lines.push(format!("   run     {} delete pod …", kubectl.join(" ")));
        }
        Act::Smoke { forward, users, expected, .. } => {
            lines.extend([line("look", users), line("look", expected), line("run", forward)]);
        }
    }
    lines.extend(step.check.as_ref().map(|check| line("check", &check.cmd)));
    lines.push(format!("   remedy  {}", step.remedy));
    lines
}

/// What was deployed, where, and how to see it.
pub(super) fn summary(options: &Options, nodes: &[String], images: &[Image]) -> String {
    let width = images.iter().map(|image| image.reference.len()).max().unwrap_or(0);
    let mut lines = vec![format!("{:width$}  ID", "IMAGE")];
    lines.extend(images.iter().map(|image| format!("{:width$}  {:.19}", image.reference, image.id)));
    let Options { release, namespace, tokens, .. } = options;
    let kubectl = options.kubectl(&["--namespace", namespace]).line();
    let template = "'go-template={{.data.users | base64decode}}'";
    lines.push(format!("\non {}; release {release} in namespace {namespace}\n\nThe page:", nodes.join(", ")));
    lines.push(format!("  {kubectl} port-forward service/loco-gateway 8080:http &"));
    let awk = "awk '$1 == \"admin\" {print $2; exit}'";
    lines.push(format!("  TOKEN=$({kubectl} get secret {tokens} --output {template} | {awk})"));
    lines.push("  echo \"http://127.0.0.1:8080/#token=$TOKEN\"".to_owned());
    lines.join("\n")
}
