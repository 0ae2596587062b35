//! `cqat completions` and `cqat man`: made from the definitions of the command line itself.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use crate::{Error, Result};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    pub(super) fn run(&self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "cqat", &mut script);
        print!("{}", String::from_utf8_lossy(&script));
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write a page for every command into this folder, instead of printing the one of the program
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl ManArgs {
    pub(super) fn run(&self) -> Result<()> {
        match &self.out {
            Some(folder) => write(folder).map_err(|e| {
                Error::config(format!("the manual pages cannot be written to {}", folder.display()))
                    .hint("check that the folder is writable")
                    .caused_by(e)
            }),
            None => {
                let mut page = Vec::new();
                let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
                rendered.map_err(|e| Error::config("the manual page cannot be made").caused_by(e))?;
                print!("{}", String::from_utf8_lossy(&page));
                Ok(())
            }
        }
    }
}

fn write(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)
}
