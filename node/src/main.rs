//! The program `pedlar`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pedlar_node::main()
}
