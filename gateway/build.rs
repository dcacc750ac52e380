//! Says where the built page is: `gateway/ui/dist`. Makes the folder if the page was not built, so that `cargo build` needs
//! no Node; the gateway then says at `/` that it has no page.
use std::{env, fs, path::Path};

fn main() {
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let dist = Path::new(&here).join("ui/dist");
    fs::create_dir_all(&dist).expect("gateway/ui/dist can be made");
    println!("cargo:rustc-env=LOCO_UI_DIST={}", dist.display());
    println!("cargo:rerun-if-changed={}", dist.display());
}
