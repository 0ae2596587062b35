//! The `cqat` command: parse, run, print the chain of errors, exit with the documented code.

use std::process::ExitCode;

use clap::Parser as _;

/// `cqat plan paper | head -1` closes the pipe early; `println!` panics then, which is no news to anyone.
fn end_quietly_when_the_reader_is_gone() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if text.is_some_and(|text| text.starts_with("failed printing to stdout")) {
            std::process::exit(0);
        }
        usual(panic);
    }));
}

fn main() -> ExitCode {
    let start = std::time::Instant::now();
    end_quietly_when_the_reader_is_gone();
    cqat::gpu::quiet_loader();
    let default = env_logger::Env::default().default_filter_or("warn,wgpu_hal=off,wgpu_core=error,naga=error");
    env_logger::Builder::from_env(default).format_timestamp(None).format_target(false).init();
    match cqat::cli::Cli::parse().run(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            let mut source = std::error::Error::source(&e);
            while let Some(cause) = source {
                eprintln!("  caused by: {cause}");
                source = cause.source();
            }
            if let Some(hint) = e.hint_text() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(e.kind().exit_code())
        }
    }
}
