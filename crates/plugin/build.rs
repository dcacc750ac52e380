//! Compiles the two trimmed protocol files. `protox` reads them in Rust, so that no `protoc` is needed.

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let files = ["proto/deviceplugin.proto", "proto/podresources.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    // Both sides of each service: the tests' kubelet is the other side.
    tonic_prost_build::configure().compile_fds(protox::compile(files, ["proto"])?)?;
    Ok(())
}
