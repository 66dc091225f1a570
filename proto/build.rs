//! Compiles `countersign/v1/*.proto` with protox, a compiler in Rust, so that no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let folder = root.join("countersign/v1");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    files.sort();
    let descriptors = protox::compile(&files, [&root])?;
    // Reflection serves these, well-known types included.
    fs::write(
        out.join("countersign_descriptor.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        // Payloads are shared, not copied, on their way through.
        .bytes(".")
        // Their Debug is written by hand in src/redacted.rs: they carry secrets.
        .skip_debug(
            [
                "Bundle",
                "BundleSecrets",
                "CreateApiKeyResponse",
                "StandbyCertificate",
                "CreateJoinTokenResponse",
                "EnrollRequest",
                "RevealSigningSecretResponse",
            ]
            .map(|message| format!("countersign.v1.{message}")),
        )
        .compile_fds(descriptors)?;
    Ok(())
}
