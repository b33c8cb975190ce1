//! The example node as a program.

fn main() -> std::process::ExitCode {
    session_node::main(std::env::args_os())
}
