//! The `sarsen` binary: hands its arguments to the command line.

fn main() -> std::process::ExitCode {
    sarsen::cli::run()
}
