//! Makes the messages and services of the kubelet's interface from its description.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["proto/deviceplugin.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
