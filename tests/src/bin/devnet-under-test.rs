//! The devnet's own `main`, under a name that `cargo test` builds for the stories.

fn main() -> std::process::ExitCode {
    pedlar_devnet::main()
}
