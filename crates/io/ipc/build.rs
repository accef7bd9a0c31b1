//! Compiles the protos in pure Rust (protox), so that a build needs no `protoc`.

use std::{env, fs, path::PathBuf};

const PROTOS: &[&str] = &[
    "common/v1/common.proto",
    "common/v2/common.proto",
    "communicationmanager/v3/updatescheduler.proto",
    "servicemanager/v5/servicemanager.proto",
    "servicemanager/v5/networkservice.proto",
    "iamanager/version.proto",
    "iamanager/v6/iamanager.proto",
    "aos/node/v1/node.proto",
    "aos/unit/v1/unit.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    // The descriptor set is kept: a test holds it against the table of the contract.
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
