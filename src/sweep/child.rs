//! The process that trains a run: `cqat train` of this very program, what it says in a log.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, ErrorKind, Result};
use crate::terminal::shell_word;

/// A process that trains a run. Asked to save and stop, and waited for, when it is dropped.
pub(super) struct Child {
    process: std::process::Child,
    log: PathBuf,
    /// Bytes of the log before this process.
    log_start: u64,
    /// Whether it was asked to save and stop.
    asked: bool,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    /// It saved and stopped as asked, or had nothing to save yet.
    Interrupted,
    Failed {
        error: String,
        hint: Option<String>,
    },
}

impl Child {
    /// Starts this program with `arguments`; what it says is added to `log`.
    ///
    /// # Errors
    /// A log that cannot be written, a process that cannot be started.
    pub(super) fn start(arguments: &[String], log: &Path) -> Result<Child> {
        let attempt = || -> std::io::Result<Child> {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
            let words: Vec<String> = arguments.iter().map(|a| shell_word(Path::new(a))).collect();
            writeln!(file, "$ cqat {}", words.join(" "))?;
            let log_start = file.metadata()?.len();
            let mut command = Command::new(std::env::current_exe()?);
            command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
            set_apart(&mut command);
            Ok(Child { process: command.spawn()?, log: log.to_path_buf(), log_start, asked: false })
        };
        attempt().map_err(|e| {
            Error::training(format!("a process for {} cannot be started", log.with_extension("").display()))
                .hint("check that the disk has room, the folder is writable, and this program is still where it was")
                .caused_by(e)
        })
    }

    /// Asks it to save and stop, once: from the second time on it would quit without saving.
    pub(super) fn interrupt(&mut self) {
        if !std::mem::replace(&mut self.asked, true) {
            signal(&self.process);
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// None in practice: the process is this one's child.
    pub(super) fn try_wait(&mut self) -> Result<Option<End>> {
        let status = self.process.try_wait().map_err(|e| {
            Error::training("a process that trains a run cannot be waited for")
                .hint("start the sweep again: it goes on")
                .caused_by(e)
        })?;
        let end = |status: std::process::ExitStatus| {
            if status.success() {
                End::Finished
            } else if status.code() == Some(i32::from(ErrorKind::Interrupted.exit_code())) || ended_by_interrupt(status)
            {
                End::Interrupted
            } else {
                self.failure(status)
            }
        };
        Ok(status.map(end))
    }

    /// The error that it told, else how it ended.
    fn failure(&self, status: std::process::ExitStatus) -> End {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(self.log_start as usize..).unwrap_or_default()).into_owned();
        let told = |start: &str| text.lines().rev().find_map(|line| line.strip_prefix(start)).map(String::from);
        let ended = || format!("the process ended with {status}; its log is {}", self.log.display());
        let causes: Vec<&str> = text.lines().filter_map(|line| line.trim_start().strip_prefix("caused by: ")).collect();
        let error = told("error: ").map_or_else(ended, |error| [&[error.as_str()], &causes[..]].concat().join(": "));
        End::Failed { error, hint: told("hint: ") }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.interrupt();
            let _ = self.process.wait();
        }
    }
}

/// A terminal's Ctrl-C reaches the sweep alone, which passes it on once: a second one would make a run quit without saving. A sweep
/// that is killed takes its runs with it, where the system can do that: they save and stop.
#[cfg(unix)]
fn set_apart(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: prctl is a system call without memory of its own; it may be called between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Before it takes interrupts, while it reads pictures and opens the device, a process ends by one.
#[cfg(unix)]
fn ended_by_interrupt(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    status.signal().is_some_and(|signal| [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].contains(&signal))
}

#[cfg(not(unix))]
fn ended_by_interrupt(_: std::process::ExitStatus) -> bool {
    false
}

#[cfg(unix)]
fn signal(process: &std::process::Child) {
    // SAFETY: kill has no memory; the process is a child that has not been waited for, so its number is still its own.
    unsafe {
        libc::kill(process.id() as libc::pid_t, libc::SIGINT);
    }
}

/// The console tells every process of a Ctrl-C.
#[cfg(not(unix))]
fn set_apart(_: &mut Command) {}

#[cfg(not(unix))]
fn signal(_: &std::process::Child) {}
