//! `cargo xtask image`: every image, from this checkout, as files.
//!
//! ```text
//! build programs ──> stage (libraries, licences, list of parts; nothing may be missing) ──> buildah ──> tar ──> try it out
//! ```
//! **Invariants.** An image that lacks a library, or whose program does not start in it, is not written under its name. The
//! same commit on the same machine gives the same image ids. One run at a time: it holds a lock, and a work directory that
//! it empties.
mod archive;
mod closure;
mod contents;
mod sbom;
mod source;
mod stage;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;
use serde_json::json;

use self::{
    archive::Buildah,
    contents::{Image, Product},
    source::Source,
};
use crate::{
    build,
    dirs::Dirs,
    print,
    run::{self, Run as _},
    setup, tell,
};

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// Tag of all images; else version and commit, such as 0.1.0-de146f12, with a hash of what was changed since
    #[arg(long)]
    tag: Option<String>,
    /// Add a hash of what the images are made of to the tag, so that no other content ever has it
    #[arg(long)]
    unique: bool,
    /// Only these images
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Where NAME.tar and NAME.cdx.json (the list of its parts) are written; else in the cache
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// First part of the images' names
    #[arg(long, value_name = "HOST[/PATH]", default_value = "localhost")]
    registry: String,
    /// Send the images to the registry, too; buildah must be logged in there
    #[arg(long, requires = "registry")]
    push: bool,
    /// The registry speaks HTTP without TLS
    #[arg(long, requires = "push")]
    plain_http: bool,
    /// Only stage the files of each image, in DIR/NAME: for images/Containerfile
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tag", "unique", "output", "push"])]
    stage: Option<PathBuf>,
}

/// One image that was made.
struct Made {
    name: &'static str,
    id: String,
}

/// Wrong usage is found before anything is built.
pub(crate) fn check(args: &ImageArgs) -> Result<()> {
    contents::chosen(&args.only).map_err(|error| anyhow!(error))?;
    ensure!(!args.push || args.registry != "localhost", "--push needs a registry to push to: --registry HOST[/PATH]");
    ensure!(
        !args.registry.is_empty() && !args.registry.contains("://") && !args.registry.ends_with('/'),
        "--registry {}: write HOST or HOST/PATH, such as registry.example.org/games",
        args.registry
    );
    args.tag.as_deref().map_or(Ok(()), source::check_tag)
}

pub(crate) fn run(dirs: &Dirs, args: &ImageArgs) -> Result<()> {
    let images = contents::chosen(&args.only).map_err(|error| anyhow!(error))?;
    stage::check_machine()?;
    if let Some(dir) = &args.stage {
        build_products(dirs, &images)?;
        for image in &images {
            stage::stage(dirs, image, &dir.join(image.name))?;
        }
        return Ok(());
    }
    ensure!(setup::on_path("buildah"), "buildah makes the images, and it is not on the PATH; apt-get install buildah");
    let work = dirs.cache().join("image-work");
    fs::create_dir_all(&work).with_context(|| format!("{}", work.display()))?;
    let lock = File::create(dirs.cache().join("image.lock")).context("cannot write into the cache")?;
    if lock.try_lock().is_err() {
        tell("another `cargo xtask image` runs; waiting for it");
        lock.lock().context("cannot lock the cache")?;
    }
    let outcome = build_products(dirs, &images).and_then(|()| make(dirs, args, &images, &work));
    // Also after a failure: it holds copies of everything.
    let cleaned = fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()));
    outcome.and(cleaned)
}

fn make(dirs: &Dirs, args: &ImageArgs, images: &[&'static Image], work: &Path) -> Result<()> {
    // Of the sources as they were when the programs were built of them, or later: a change in between shows in the tag.
    let source = Source::read(dirs)?;
    let buildah = Buildah::new(&work.join("buildah"));
    let output = args.output.clone().unwrap_or_else(|| dirs.cache().join("images"));
    fs::create_dir_all(&output).with_context(|| format!("{}", output.display()))?;
    let staged = work.join("staged");
    let mut made = Vec::new();
    for image in images {
        tell(&format!("image: {}", image.name));
        let parts = stage::stage(dirs, image, &staged.join(image.name))?;
        let list = output.join(format!("{}.cdx.json", image.name));
        fs::write(&list, parts).with_context(|| format!("cannot write {}", list.display()))?;
        made.push(Made { name: image.name, id: buildah.build(dirs, image, &staged, &source)? });
    }
    let mut tag = args.tag.clone().unwrap_or_else(|| source.tag());
    if args.unique {
        tag = source::unique(&tag, &made.iter().map(|made| made.id.as_str()).collect::<Vec<_>>())?;
    }
    for (image, Made { name, id }) in images.iter().zip(&made) {
        let reference = format!("{}/loco/{name}:{tag}", args.registry);
        let tar = output.join(format!("{name}.tar"));
        let untried = work.join(format!("{name}.tar"));
        buildah.save(id, &reference, &untried)?;
        archive::try_out(image, &untried, &work.join("trial"))?;
        // Both are in the cache, or else the output is of another file system.
        fs::rename(&untried, &tar)
            .or_else(|_| fs::copy(&untried, &tar).map(drop))
            .with_context(|| format!("cannot write {}", tar.display()))?;
        let bytes = fs::metadata(&tar)?.len();
        let mut line = json!({ "name": name, "ref": reference, "id": id, "tar": tar, "bytes": bytes });
        if args.push {
            line["digest"] = json!(buildah.push(id, &reference, args.plain_http)?);
        }
        print(&line.to_string());
    }
    Ok(())
}

/// Builds what the images need, in the profile that everything is built in (docs/adr/0009).
fn build_products(dirs: &Dirs, images: &[&Image]) -> Result<()> {
    let products: Vec<Product> = images.iter().flat_map(|image| image.products).copied().collect();
    let mut packages = Vec::new();
    for product in &products {
        match product {
            Product::Program { package, .. } => packages.extend(["--package", package]),
            // Its loader must not be named in it, which is a matter of its linking only.
            Product::Static { package, name, .. } => {
                let mut cargo = run::cargo(dirs);
                cargo
                    .args(["rustc", "--package", package, "--bin", name, "--", "-Ctarget-feature=+crt-static"])
                    .run()?;
            }
            Product::DemoKernel { .. } => {}
        }
    }
    if products.iter().any(|product| matches!(product, Product::DemoKernel { .. })) {
        build::demo_guest(dirs)?;
    }
    if packages.contains(&"gateway") {
        build::page(dirs)?;
    }
    if packages.is_empty() {
        return Ok(());
    }
    run::cargo(dirs).args(["build", "--bins"]).args(packages).run()
}

/// What a command says of `input`.
fn answer_to(command: &mut Command, input: &str) -> Result<String> {
    use std::io::Write as _;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("its input is piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "`{}` failed: {}", command.get_program().display(), output.status);
    Ok(String::from_utf8(output.stdout)?)
}
