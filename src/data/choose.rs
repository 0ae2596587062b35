//! Which files of a CIFAR set are for training and which is for testing.
//!
//! Names and sizes decide: the test file has a word that starts with `test` in its name, or is smaller than all others. Where
//! both say nothing, or name and size of a CIFAR-100 file contradict each other, there is no choice.

use super::part::{Layout, Part};

/// Why a choice is not possible.
pub(super) enum Unclear {
    /// The `training` or the `test` file is not there.
    Missing(&'static str),
    /// The files cannot be told apart; what would have decided.
    Ambiguous(&'static str),
}

/// The training files, in the order given, and the test file.
type Choice = Result<(Vec<Part>, Part), Unclear>;

/// Chooses among `parts`, all of `layout`, one at least.
pub(super) fn choose(parts: &[Part], layout: Layout) -> Choice {
    match layout {
        Layout::Cifar100 => cifar100(parts),
        Layout::Cifar10 => cifar10(parts),
    }
}

/// Whether a word of the file's name starts with `test`: `test.bin` and `cifar_Test2`, but not `latest.bin`.
fn is_named_test(part: &Part) -> bool {
    let name = part.file.name().to_ascii_lowercase();
    name.match_indices("test").any(|(at, _)| !name[..at].ends_with(|c: char| c.is_alphabetic()))
}

/// CIFAR-100: two files, the larger for training; of two equal ones, the one named test is for testing.
fn cifar100(parts: &[Part]) -> Choice {
    let (a, b) = match parts {
        [one] => {
            let missing = if is_named_test(one) { "training" } else { "test" };
            return Err(Unclear::Missing(missing));
        }
        [a, b] => (a, b),
        _ => return Err(Unclear::Ambiguous("expected one CIFAR-100 file for training and a smaller one for testing")),
    };
    let (smaller, larger) = if a.pictures < b.pictures { (a, b) } else { (b, a) };
    let sizes_differ = smaller.pictures < larger.pictures;
    let (test, train) = match (is_named_test(smaller), is_named_test(larger)) {
        (false, true) if sizes_differ => {
            return Err(Unclear::Ambiguous("expected the file named test to be the smaller one"));
        }
        (false, true) => (larger, smaller),
        (true, false) => (smaller, larger),
        _ if sizes_differ => (smaller, larger),
        _ => return Err(Unclear::Ambiguous("expected two sizes, or one file with `test` in its name")),
    };
    Ok((vec![train.clone()], test.clone()))
}

/// CIFAR-10: the file named test, and five others of one size (or a single one) for training.
fn cifar10(parts: &[Part]) -> Choice {
    // `MyTest.bin` will do where no name is better.
    let exact = parts.iter().any(is_named_test);
    let anywhere = |part: &Part| part.file.name().to_ascii_lowercase().contains("test");
    let odd = smaller_one(parts);
    let is_test = |part: &Part| match (exact, odd) {
        (true, _) => is_named_test(part),
        (false, Some(odd)) => part.file.path == odd.file.path,
        (false, None) => anywhere(part),
    };
    let (mut tests, train): (Vec<Part>, Vec<Part>) = parts.iter().cloned().partition(is_test);
    match (train.len(), tests.len()) {
        (0, 1) => return Err(Unclear::Missing("training")),
        (1, 0) => return Err(Unclear::Missing("test")),
        (_, 0) => return Err(Unclear::Ambiguous("expected one CIFAR-10 file with `test` in its name, found none")),
        (_, 2..) => {
            return Err(Unclear::Ambiguous("expected one CIFAR-10 file with `test` in its name, found several"));
        }
        (1, _) => log::warn!("{}: one training file, the published set has five", train[0].file.path.display()),
        (5, _) => {}
        _ => {
            return Err(Unclear::Ambiguous(
                "expected five CIFAR-10 training files (or a single one) beside the test file",
            ));
        }
    }
    if train.iter().any(|part| part.pictures != train[0].pictures) {
        return Err(Unclear::Ambiguous("expected the training files of CIFAR-10 to have one size"));
    }
    Ok((train, tests.swap_remove(0)))
}

/// The one of several files that has fewer pictures than all others, which have the same number.
fn smaller_one(parts: &[Part]) -> Option<&Part> {
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|part| part.pictures);
    let [first, second, .., last] = parts[..] else { return None };
    (first.pictures < second.pictures && second.pictures == last.pictures).then_some(first)
}
