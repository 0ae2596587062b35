//! Which files of a folder are for training and which is for testing.
//!
//! Sizes decide, and one rule about names: a file with a word that starts with `test` in its name is the test file.

use std::path::Path;

use super::file::{file_name, has_extension};
use super::folder::{Folder, strange_note};
use super::part::{Layout, Part};
use crate::error::{Error, Result};

/// Whether a word of the file's name starts with `test`: `test.bin` and `cifar_Test2`, but not `latest.bin`.
fn is_named_test(part: &Part) -> bool {
    let name = part.file.name().to_ascii_lowercase();
    name.match_indices("test").any(|(at, _)| !name[..at].ends_with(|c: char| c.is_alphabetic()))
}

/// Whether a file has a name as the published ones have: `train.bin`, `data_batch_1`.
fn is_named_like_cifar(path: &Path) -> bool {
    has_extension(path, "bin") || path.extension().is_none()
}

impl Folder {
    /// The layout that all files with pictures share.
    pub(super) fn layout(&self) -> Result<Layout> {
        let first = &self.parts[0];
        match self.parts.iter().find(|part| part.layout != first.layout) {
            None => Ok(first.layout),
            Some(other) => Err(Error::data(format!(
                "{} holds files of CIFAR-10 and of CIFAR-100 ({} and {}), expected one data set",
                self.path.display(),
                first.file.name(),
                other.file.name()
            ))
            .hint("give each data set a folder of its own and name one of them")),
        }
    }

    /// Which files are for training, in the order of their names, and which is for testing.
    ///
    /// A damaged file among them is an error of its own: without it the choice would be a wrong one.
    pub(super) fn choose(&mut self, layout: Layout) -> Result<(Vec<Part>, Part)> {
        let choice = match layout {
            Layout::Cifar100 => self.choose_cifar100(),
            Layout::Cifar10 => self.choose_cifar10(),
        };
        let damaged = self.broken.iter().position(|(path, _)| choice.is_err() || is_named_like_cifar(path));
        match damaged {
            Some(i) => Err(self.broken.swap_remove(i).1),
            None => choice,
        }
    }

    /// CIFAR-100: two files, the larger for training; of two equal ones, the one named test is for testing.
    fn choose_cifar100(&self) -> Result<(Vec<Part>, Part)> {
        let (a, b) = match &self.parts[..] {
            [one] => {
                let missing = if is_named_test(one) { "training" } else { "test" };
                return Err(self.missing(missing, "CIFAR-100"));
            }
            [a, b] => (a, b),
            _ => return Err(self.ambiguous("expected one CIFAR-100 file for training and a smaller one for testing")),
        };
        let (smaller, larger) = if a.pictures < b.pictures { (a, b) } else { (b, a) };
        let sizes_differ = smaller.pictures < larger.pictures;
        let (test, train) = match (is_named_test(smaller), is_named_test(larger)) {
            (false, true) if sizes_differ => {
                return Err(self.ambiguous("expected the file named test to be the smaller one"));
            }
            (false, true) => (larger, smaller),
            (true, false) => (smaller, larger),
            _ if sizes_differ => (smaller, larger),
            _ => return Err(self.ambiguous("expected two sizes, or one file with `test` in its name")),
        };
        Ok((vec![train.clone()], test.clone()))
    }

    /// CIFAR-10: the file named test, and five others of one size (or a single one) for training.
    fn choose_cifar10(&self) -> Result<(Vec<Part>, Part)> {
        // `MyTest.bin` will do where no name is better.
        let exact = self.parts.iter().any(is_named_test);
        let anywhere = |part: &Part| part.file.name().to_ascii_lowercase().contains("test");
        let odd = self.smaller_one();
        let is_test = |part: &Part| match (exact, odd) {
            (true, _) => is_named_test(part),
            (false, Some(odd)) => part.file.path == odd.file.path,
            (false, None) => anywhere(part),
        };
        let (mut tests, train): (Vec<Part>, Vec<Part>) = self.parts.iter().cloned().partition(is_test);
        match (train.len(), tests.len()) {
            (0, 1) => return Err(self.missing("training", "CIFAR-10")),
            (1, 0) => return Err(self.missing("test", "CIFAR-10")),
            (_, 0) => return Err(self.ambiguous("expected one CIFAR-10 file with `test` in its name, found none")),
            (_, 2..) => return Err(self.ambiguous("expected one CIFAR-10 file with `test` in its name, found several")),
            (1, _) => log::warn!("{}: one training file, the published set has five", self.path.display()),
            (5, _) => {}
            _ => return Err(self.ambiguous("expected five CIFAR-10 files (or a single one) beside the test file")),
        }
        if train.iter().any(|part| part.pictures != train[0].pictures) {
            return Err(self.ambiguous("expected the training files of CIFAR-10 to have one size"));
        }
        Ok((train, tests.swap_remove(0)))
    }

    /// The one of several files that has fewer pictures than all others, which have the same number.
    fn smaller_one(&self) -> Option<&Part> {
        let mut parts: Vec<&Part> = self.parts.iter().collect();
        parts.sort_by_key(|part| part.pictures);
        let [first, second, .., last] = parts[..] else { return None };
        (first.pictures < second.pictures && second.pictures == last.pictures).then_some(first)
    }

    fn missing(&self, which: &str, title: &str) -> Error {
        let alone = &self.parts[0].file;
        let hint = match self.packed() {
            Some(path) => format!("if it is in {}, name that, or unpack it", file_name(path)),
            None => format!("put the {which} file of {title} beside it"),
        };
        Error::data(format!(
            "the {which} file of {title} is missing: {} holds {} ({} bytes) alone{}",
            self.path.display(),
            alone.name(),
            alone.size,
            strange_note(&self.strange)
        ))
        .hint(hint)
    }

    /// The files with pictures cannot be told apart; `expected` says what would have decided.
    fn ambiguous(&self, expected: &str) -> Error {
        let describe = |part: &Part| format!("{} ({} pictures)", part.file.name(), part.pictures);
        let list: Vec<String> = self.parts.iter().take(12).map(describe).collect();
        Error::data(format!(
            "training and test files in {} are ambiguous: {expected}; there are {}: {}",
            self.path.display(),
            self.parts.len(),
            list.join(", ")
        ))
        .hint("leave the files of one data set alone in the folder, the test file with `test` in its name")
    }
}
