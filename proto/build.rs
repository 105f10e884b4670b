//! Compiles the `.proto` files with protox, so that no `protoc` is needed on the machine.

use std::io::Result;

const FILES: [&str; 5] = ["offers.proto", "sessions.proto", "accounts.proto", "journal.proto", "backup.proto"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=pedlar/v1");
    let files = FILES.map(|name| format!("pedlar/v1/{name}"));
    let set = protox::compile(files, ["."]).map_err(std::io::Error::other)?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(set)
}
