//! The checked-in message types are those of `proto/`: users build without protoc and without a
//! build script. `REGENERATE=1 cargo test -p wire-types` writes them anew.

use std::path::Path;

#[test]
fn message_types_match_the_proto_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let proto = root.join("proto");
    let files =
        ["sessionmesh/v1/membership.proto", "sessionmesh/v1/link.proto", "sessionmesh/v1/token.proto"];
    let descriptors = protox::compile(files, [proto]).expect("the proto files compile");
    let out = std::env::temp_dir().join(format!("sessionmesh-proto-{}", std::process::id()));
    std::fs::create_dir_all(&out).expect("a folder for the generated code");
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .out_dir(&out)
        .compile_fds(descriptors)
        .expect("code is generated");
    let generated = std::fs::read_to_string(out.join("sessionmesh.v1.rs")).expect("the generated code");
    std::fs::remove_dir_all(&out).expect("the folder goes");

    let checked_in = root.join("crates/sessionmesh-core/src/wire/generated.rs");
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(&checked_in, &generated).expect("the checked-in code is written");
    }
    let present = std::fs::read_to_string(&checked_in).expect("the checked-in code");
    assert!(
        present == generated,
        "proto/ and crates/sessionmesh-core/src/wire/generated.rs differ: run \
         `REGENERATE=1 cargo test -p wire-types`"
    );
}
