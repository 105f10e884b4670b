//! `pedlar-devnet`: a whole market on one machine.

fn main() -> std::process::ExitCode {
    pedlar_devnet::main()
}
