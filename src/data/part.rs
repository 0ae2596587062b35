//! What the forms of CIFAR have in common: layouts, and what a file turned out to be.

use super::PICTURE_BYTES;
use super::file::DataFile;
use crate::error::Error;

/// Which of the two record layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Cifar10,
    Cifar100,
}

/// One label of a picture, a byte in the binary version: its name and the number of values it may take.
pub(super) struct Label {
    pub(super) name: &'static str,
    /// Its list in the Python version.
    pub(super) key: &'static str,
    pub(super) classes: u8,
}

impl Layout {
    pub(super) const ALL: [Layout; 2] = [Layout::Cifar100, Layout::Cifar10];

    /// Name for messages.
    pub(super) fn title(self) -> &'static str {
        match self {
            Layout::Cifar10 => "CIFAR-10",
            Layout::Cifar100 => "CIFAR-100",
        }
    }

    /// Name for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Layout::Cifar10 => "cifar10",
            Layout::Cifar100 => "cifar100",
        }
    }

    /// The labels of a picture, in the order of the record; the last is the class.
    pub(super) fn labels(self) -> &'static [Label] {
        match self {
            Layout::Cifar10 => &[Label { name: "label", key: "labels", classes: 10 }],
            Layout::Cifar100 => &[
                Label { name: "coarse label", key: "coarse_labels", classes: 20 },
                Label { name: "fine label", key: "fine_labels", classes: 100 },
            ],
        }
    }

    /// Number of classes.
    pub(super) fn classes(self) -> usize {
        self.labels().last().map_or(0, |l| usize::from(l.classes))
    }

    /// Bytes of a record: 3073 or 3074.
    pub(super) fn record_bytes(self) -> usize {
        self.labels().len() + PICTURE_BYTES
    }
}

/// How the pictures are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Binary,
    Python,
}

/// A file with labelled pictures.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) file: DataFile,
    pub(super) layout: Layout,
    pub(super) form: Form,
    /// Number of pictures.
    pub(super) pictures: u64,
}

/// What a file turned out to be.
#[derive(Debug)]
pub(super) enum Kind {
    /// Labelled pictures, all of them well formed.
    Pictures(Part),
    /// Names of classes.
    Names(Vec<String>),
    /// Close enough to a CIFAR file that the user must be told what is wrong with it.
    Broken(Error),
    /// A tar archive, packed or not.
    Archive,
    /// An archive of this kind, which is not read.
    Unread(&'static str),
    /// Something unrelated.
    Other,
}
