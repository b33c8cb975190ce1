//! `session-node`, for the tests of this package.

fn main() -> std::process::ExitCode {
    session_node::main(std::env::args_os())
}
