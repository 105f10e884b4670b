//! `pedlar-devnet`: a whole market on one machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A node of the market is this program again.
    if std::env::var_os(pedlar_devnet::NODE_MARK).is_some() {
        return pedlar_node::main();
    }
    pedlar_devnet::main()
}
