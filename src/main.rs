//! The `cqat` command: parse, run, print the chain of errors, exit with the documented code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use cqat::terminal::{explain, printable};

/// What a panic prints. `println!` panics where it cannot write. `cqat plan paper | head -1` closes the pipe early, which is no news to anyone;
/// a full disk is.
fn report_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if text.is_some_and(|t| t.starts_with(cqat::gpu::LOST_PANIC)) {
            return; // caught, and told as an error
        }
        let Some(text) = text.filter(|t| t.starts_with("failed printing to stdout")) else { return usual(panic) };
        // EPIPE; on Windows ERROR_NO_DATA and ERROR_BROKEN_PIPE.
        if ["(os error 32)", "(os error 232)", "(os error 109)"].iter().any(|code| text.contains(code)) {
            std::process::exit(0);
        }
        let _ = writeln!(std::io::stderr(), "error: {text}\nhint: check that the disk has room");
        std::process::exit(i32::from(cqat::ErrorKind::Training.exit_code()));
    }));
}

/// Keeps Vulkan drivers from complaining on standard error that there is no desktop session (they look for one even for
/// compute alone). To be called first thing in `main`.
fn quiet_loader() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: there is no other thread yet, so nobody reads the environment at the same time.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) }
    }
}

fn main() -> ExitCode {
    let start = std::time::Instant::now();
    report_panics();
    quiet_loader();
    let default = env_logger::Env::default().default_filter_or("warn,wgpu_hal=off,wgpu_core=error,naga=error");
    env_logger::Builder::from_env(default)
        .format(|out, record| {
            let (level, style) = (record.level(), out.default_level_style(record.level()));
            let text = printable(&record.args().to_string()).replace('\n', "\n    ");
            writeln!(out, "[{style}{level:5}{style:#}] {text}")
        })
        .init();
    let cli = match cqat::cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and the version are errors too, on standard output, and wanted.
            let printed = e.print();
            let is_lost = !e.use_stderr() && printed.is_err_and(|e| e.kind() != std::io::ErrorKind::BrokenPipe);
            return ExitCode::from(if is_lost { cqat::ErrorKind::Training.exit_code() } else { e.exit_code() as u8 });
        }
    };
    match cli.run(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Whether or not anybody reads it, the exit code tells.
            let _ = std::io::stderr().write_all(explain(&e).as_bytes());
            ExitCode::from(e.kind().exit_code())
        }
    }
}
