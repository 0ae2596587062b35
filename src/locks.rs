//! Locks by which processes keep out of each other's way. The system lets go of them when a process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Time between two tries while somebody looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Tries before a lock counts as taken that looks alone keep from being had: a second of them.
const TRIES: u32 = 200;

/// What came of the wish for a lock.
#[derive(Debug)]
pub(crate) enum Lock {
    /// It is this process's, for as long as the file lives.
    Held(File),
    /// Another has it.
    Taken,
    /// The file system has no locks.
    Missing(io::Error),
}

/// Takes the lock `path` if no other has it. One who looks ([`is_taken`]) has it not, and is waited for.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn take(path: &Path) -> io::Result<Lock> {
    // Reading too: a network file system gives shared locks to readers alone.
    let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Lock::Held(file)),
            Err(TryLockError::Error(e)) => return Ok(Lock::Missing(e)),
            Err(TryLockError::WouldBlock) => {}
        }
        match file.try_lock_shared() {
            Ok(()) => file.unlock()?,
            Err(_) => break,
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Lock::Taken)
}

/// Whether a process has the lock `path`. Where there is no such file, or it cannot be read, nobody has.
pub(crate) fn is_taken(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Waits for the lock `path`. Where the file system has no locks there is nothing to wait for.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn wait(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)?;
    let _ = file.lock();
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_once_and_looks_take_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        assert!(!is_taken(&path) && !path.exists());
        let held = take(&path).unwrap();
        assert!(matches!(held, Lock::Held(_)) && is_taken(&path));
        assert!(matches!(take(&path).unwrap(), Lock::Taken));
        drop(held);
        // Two look at the same time, and neither takes the other for one who has it.
        let look = File::open(&path).unwrap();
        look.try_lock_shared().unwrap();
        assert!(!is_taken(&path));
        let other = std::thread::spawn(move || {
            std::thread::sleep(20 * PAUSE);
            drop(look);
        });
        assert!(matches!(take(&path).unwrap(), Lock::Held(_)), "the look is waited for");
        other.join().unwrap();
        assert!(matches!(take(&path).unwrap(), Lock::Held(_)));
    }
}
