//! Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::progress::say;
use crate::{ErrorKind, interrupt};

/// While this lives, the first Ctrl-C asks the work at hand to save and stop; without it, and from the second on, Ctrl-C
/// ends the process.
pub(super) struct Interrupts;

/// An interrupt so soon after the first is the same wish: a supervisor tells a whole tree of processes, and a sweep of them passes it
/// on to its runs.
const SAME_WISH: Duration = Duration::from_secs(2);

/// Whether an [`Interrupts`] lives.
static ALIVE: AtomicBool = AtomicBool::new(false);

impl Interrupts {
    /// `answer` is what the first Ctrl-C prints. To be called before there is anything to see of the work, so that what can be
    /// seen can be interrupted.
    pub(super) fn take(answer: &'static str) -> Interrupts {
        ALIVE.store(true, Ordering::SeqCst);
        let nohup = hangups_are_ignored();
        let mut first: Option<Instant> = None;
        let installed = ctrlc::set_handler(move || {
            if !ALIVE.load(Ordering::SeqCst) {
                quit();
            }
            if interrupt::request() {
                match first {
                    Some(first) if first.elapsed() < SAME_WISH => return,
                    _ => quit(),
                }
            }
            first = Some(Instant::now());
            say!("\n{answer}; interrupt again to quit at once");
        });
        if let Err(e) = installed {
            log::warn!("interrupts are not handled: {e}");
        }
        if nohup {
            ignore_hangups();
        }
        Interrupts
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        ALIVE.store(false, Ordering::SeqCst);
    }
}

/// Ends the process at once. Not by `exit`: what it runs at the end would find a driver's threads at work (NVIDIA's crashes).
#[cfg(unix)]
fn quit() -> ! {
    // SAFETY: it takes a number and runs no more code of this process.
    unsafe { libc::_exit(i32::from(ErrorKind::Interrupted.exit_code())) }
}

#[cfg(not(unix))]
fn quit() -> ! {
    std::process::exit(i32::from(ErrorKind::Interrupted.exit_code()))
}

/// Whether the process was started to outlive its terminal (`nohup`).
#[cfg(unix)]
fn hangups_are_ignored() -> bool {
    // SAFETY: sigaction with no new action only writes the old one, into zeroed memory of its type.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut old) == 0 && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Undoes for SIGHUP what the interrupt handler does.
#[cfg(unix)]
fn ignore_hangups() {
    // SAFETY: ignoring a signal runs no code.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

#[cfg(not(unix))]
fn hangups_are_ignored() -> bool {
    false
}

#[cfg(not(unix))]
fn ignore_hangups() {}
