//! Finding a CIFAR set: in a folder, in one of its immediate sub-folders, or in an archive.
//!
//! Looked at are regular files that are not hidden, each by its content; names matter to `choose.rs`, which decides which of
//! the files with pictures are for training and for testing. All files of a set lie in one folder or one archive.

use std::fs;
use std::path::{Path, PathBuf};

use super::choose::{Unclear, choose};
use super::file::{DataFile, MAX_ENTRIES, MAX_FILE_BYTES, file_name};
use super::part::{Form, Kind, Layout, Part};
use super::{Contents, SIDE, Split, archive, cifar, classes, numbered_class_names, python};
use crate::error::{Error, Result};
use crate::files::{self, has_extension};
use crate::pictures;

/// Sub-folders that are looked at.
const MAX_FOLDERS: usize = 64;
/// Larger lists of class names are passed over.
const MAX_NAMES_BYTES: u64 = 64 << 10;

const WHAT_IS_READ: &str = "`cqat data fetch cifar100` gets CIFAR-100; or put it or CIFAR-10 there, in the binary or the \
                            Python version, unpacked or as the published .tar.gz; or use the built-in set: embedded";

/// What the files of one folder or archive turned out to be, each list in the order of the names.
pub(super) struct Folder {
    path: PathBuf,
    parts: Vec<Part>,
    broken: Vec<(PathBuf, Error)>,
    /// Lists of class names out of pickles.
    names: Vec<Vec<String>>,
    archives: Vec<DataFile>,
    /// Archives that are not read, and their kinds.
    unread: Vec<(PathBuf, &'static str)>,
    /// Files named like CIFAR's that hold nothing like records.
    strange: Vec<DataFile>,
    texts: Vec<DataFile>,
    folders: Vec<PathBuf>,
    entries: usize,
    /// Whether it holds more than are looked at, so that nothing in it was.
    is_crowded: bool,
}

/// Reads `parts`, one after the other, into one split.
///
/// Memory is taken for what the files hold and no more. The class of a CIFAR-100 picture is its fine label.
fn read_parts(parts: &[Part]) -> Result<Split> {
    let total = parts.iter().map(|p| p.pictures).sum::<u64>() as usize;
    let mut split = Split::with_capacity(SIDE, total);
    for part in parts {
        match part.form {
            Form::Binary => cifar::read(part, &mut split)?,
            Form::Python => python::read(&part.file, part.layout, &mut split)?,
        }
    }
    Ok(split)
}

/// What `file` is, by its content.
fn recognise(file: &DataFile) -> Kind {
    let attempt = || -> std::io::Result<Kind> {
        let start = file.start(512)?;
        Ok(match &start[..] {
            [0x1f, 0x8b, ..] => Kind::Archive,
            _ if is_tar(&start) => Kind::Archive,
            [b'P', b'K', 3, 4, ..] => Kind::Unread("a zip"),
            [b'B', b'Z', b'h', ..] => Kind::Unread("a bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Kind::Unread("an xz"),
            [b'7', b'z', 0xbc, 0xaf, ..] => Kind::Unread("a 7z"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Kind::Unread("a zstd"),
            start if pictures::is_picture(start) => Kind::Other,
            start if python::is_pickle(start) => python::recognise(file),
            _ => cifar::recognise(file)?,
        })
    };
    attempt().unwrap_or_else(|e| Kind::Broken(file.unreadable(e)))
}

/// Whether a file that starts so is a tar archive: the first header's checksum is right, which all versions have.
fn is_tar(start: &[u8]) -> bool {
    let Some(header) = start.first_chunk::<512>() else { return false };
    let text = std::str::from_utf8(&header[148..156]).unwrap_or_default();
    let stated = u32::from_str_radix(text.trim_matches(['\0', ' ']), 8);
    let blank = |(i, byte): (usize, &u8)| if (148..156).contains(&i) { 32 } else { u32::from(*byte) };
    stated == Ok(header.iter().enumerate().map(blank).sum())
}

/// What a search came to.
pub(super) enum Found {
    /// A CIFAR set.
    Set(Box<Folder>),
    /// The folders that were searched. There may be archives in them.
    Nothing(Searched),
}

/// Folders without a CIFAR set: the place asked for, then its sub-folders.
pub(super) struct Searched(Vec<Folder>);

/// Looks for CIFAR's files in `place`: an archive, or a folder and its immediate sub-folders.
pub(super) fn find(place: &Path) -> Result<Found> {
    if let Some(file) = regular_file(place) {
        return match recognise(&file) {
            Kind::Archive => in_archive(&file).map(|folder| Found::Set(folder.into())),
            Kind::Broken(error) => Err(error),
            Kind::Unread(kind) => Err(Error::data(format!("{} is {kind} archive, which is not read", place.display()))
                .hint("unpack it and name the folder; .tar and .tar.gz are read")),
            _ => Err(Error::data(format!("{} is a file, expected a folder or an archive", place.display()))
                .hint("name the folder that holds the training and test files")),
        };
    }
    if !place.exists() {
        return Err(Error::data(format!("the data folder {} does not exist", place.display()))
            .hint(format!("check the path, or {WHAT_IS_READ}")));
    }
    if !place.is_dir() {
        return Err(Error::data(format!("{} is neither a folder nor a file", place.display()))
            .hint("name the folder that holds the training and test files"));
    }
    let mut searched = vec![Folder::scan(place)?];
    if searched[0].parts.is_empty() && searched[0].folders.len() <= MAX_FOLDERS {
        for path in searched[0].folders.clone() {
            match Folder::scan(&path) {
                Ok(folder) => searched.push(folder),
                Err(e) => log::debug!("{e}; passed over"),
            }
        }
    }
    let (mut found, rest): (Vec<Folder>, Vec<Folder>) = searched.into_iter().partition(|f| !f.parts.is_empty());
    match found.len() {
        0 => Ok(Found::Nothing(Searched(rest))),
        1 => Ok(Found::Set(found.swap_remove(0).into())),
        _ => Err(several_found("sub-folders of", place, found.iter().map(|f| &f.path))),
    }
}

impl Searched {
    /// The set in the one archive that lies in the place itself; the error that says what was found where there is none.
    pub(super) fn in_archive(self) -> Result<Folder> {
        match &self.0[0].archives[..] {
            [] => Err(nothing_found(self.0)),
            [one] => in_archive(one),
            several => Err(several_found("archives in", &self.0[0].path, several.iter().map(|f| &f.path))),
        }
    }
}

/// A data set in an archive.
fn in_archive(file: &DataFile) -> Result<Folder> {
    let mut folder = Folder::empty(&file.path);
    let mut files = archive::unpack(file)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in files {
        folder.entries += 1;
        folder.add(file);
    }
    match folder.parts.is_empty() {
        true => Err(nothing_found(vec![folder])),
        false => Ok(folder),
    }
}

fn regular_file(path: &Path) -> Option<DataFile> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(DataFile::on_disk(path.into(), metadata.len()))
}

fn several_found<'p>(what: &str, place: &Path, found: impl Iterator<Item = &'p PathBuf>) -> Error {
    let paths: Vec<String> = found.map(|path| path.display().to_string()).collect();
    Error::data(format!(
        "{} {what} {} hold CIFAR files, expected one: {}",
        paths.len(),
        place.display(),
        paths.join(", ")
    ))
    .hint(format!("name one of them, for example {}", paths[0]))
}

/// The error for a place, the first of `searched`, without a single good file: the most telling thing that was seen.
fn nothing_found(searched: Vec<Folder>) -> Error {
    let place = searched[0].path.display().to_string();
    if searched[0].is_crowded {
        return Error::data(format!(
            "{place} holds more than {MAX_ENTRIES} files, expected a folder with a data set and little else"
        ))
        .hint("move the CIFAR files to a folder of their own and name that");
    }
    if searched[0].folders.len() > MAX_FOLDERS {
        return Error::data(format!(
            "{place} holds {} sub-folders and neither a CIFAR file nor pictures, expected at most {MAX_FOLDERS}",
            searched[0].folders.len()
        ))
        .hint("name the folder that holds the files itself");
    }
    let entries: usize = searched.iter().map(|f| f.entries).sum();
    let strange: Vec<DataFile> = searched.iter().flat_map(|f| &f.strange).take(3).cloned().collect();
    let unread = searched.iter().flat_map(|f| &f.unread).next().cloned();
    if let Some((_, error)) = searched.into_iter().flat_map(|f| f.broken).next() {
        return error;
    }
    if unread.is_none()
        && let Some(error) = classes::nearly(Path::new(&place))
    {
        return error;
    }
    let what = if entries == 0 { "is empty" } else { "holds no CIFAR file, nor do its sub-folders" };
    Error::data(format!(
        "{place} {what}; expected CIFAR-100 or CIFAR-10, whose binary files are made of records of 3074 or 3073 bytes, or \
         folders of PNG or JPEG pictures, one for each class{}",
        strange_note(&strange)
    ))
    .hint(match unread {
        Some((path, kind)) => {
            format!("{} is {kind} archive, which is not read: unpack it; or {WHAT_IS_READ}", path.display())
        }
        None => WHAT_IS_READ.into(),
    })
}

/// The end of a message about a missing file: what lies there that may have been meant for it.
fn strange_note(strange: &[DataFile]) -> String {
    strange.iter().map(|f| format!("; {} ({} bytes) is not made of such records", f.name(), f.size)).collect()
}

impl Folder {
    fn empty(path: &Path) -> Folder {
        Folder {
            path: path.into(),
            parts: Vec::new(),
            broken: Vec::new(),
            names: Vec::new(),
            archives: Vec::new(),
            unread: Vec::new(),
            strange: Vec::new(),
            texts: Vec::new(),
            folders: Vec::new(),
            entries: 0,
            is_crowded: false,
        }
    }

    fn scan(path: &Path) -> Result<Folder> {
        let paths = files::list(path, MAX_ENTRIES)?;
        let mut folder = Folder { entries: paths.len(), ..Folder::empty(path) };
        if paths.len() > MAX_ENTRIES {
            return Ok(Folder { is_crowded: true, ..folder });
        }
        for path in paths {
            // Anything but folders and regular files is never opened.
            match fs::metadata(&path) {
                Ok(m) if m.is_dir() => folder.folders.push(path),
                Ok(m) if m.is_file() && m.len() > MAX_FILE_BYTES => {
                    log::warn!("{}: larger than {MAX_FILE_BYTES} bytes, passed over", path.display());
                }
                Ok(m) if m.is_file() => folder.add(DataFile::on_disk(path, m.len())),
                _ => log::debug!("{}: cannot be looked at, passed over", path.display()),
            }
        }
        Ok(folder)
    }

    /// Files `file` under what it is.
    fn add(&mut self, file: DataFile) {
        match recognise(&file) {
            Kind::Pictures(part) => self.parts.push(part),
            Kind::Names(names) => self.names.push(names),
            _ if has_extension(&file.path, &["txt"]) => self.texts.push(file),
            Kind::Broken(error) => self.broken.push((file.path, error)),
            Kind::Archive => self.archives.push(file),
            Kind::Unread(kind) => self.unread.push((file.path, kind)),
            Kind::Other if may_be_meant(&file) => self.strange.push(file),
            Kind::Other => log::debug!("{}: not a CIFAR file", file.path.display()),
        }
    }

    /// Reads the set.
    pub(super) fn read(mut self) -> Result<Contents> {
        let layout = self.layout()?;
        let (train, test) = self.choose(layout)?;
        let names = |parts: &[Part]| parts.iter().map(|p| p.file.name()).collect::<Vec<_>>().join(", ");
        log::debug!("{}: train on {}, test on {}", self.path.display(), names(&train), test.file.name());
        // An archive is one file on disk, whatever is in it.
        let sources = match self.path.is_file() {
            true => vec![self.path.clone()],
            false => train.iter().chain([&test]).map(|part| part.file.path.clone()).collect(),
        };
        Ok(Contents {
            sources,
            name: layout.name().into(),
            class_names: self.class_names(layout.classes()),
            train: read_parts(&train)?,
            test: read_parts(&[test])?,
        })
    }

    /// The layout that all files with pictures share.
    fn layout(&self) -> Result<Layout> {
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
    fn choose(&mut self, layout: Layout) -> Result<(Vec<Part>, Part)> {
        // As the published ones are named: `train.bin`, `data_batch_1`.
        let is_named_like_cifar = |path: &Path| has_extension(path, &["bin"]) || path.extension().is_none();
        let choice = choose(&self.parts, layout);
        match self.broken.iter().position(|(path, _)| choice.is_err() || is_named_like_cifar(path)) {
            Some(i) => Err(self.broken.swap_remove(i).1),
            None => choice.map_err(|unclear| self.unclear(unclear, layout)),
        }
    }

    fn unclear(&self, why: Unclear, layout: Layout) -> Error {
        let place = self.path.display();
        match why {
            Unclear::Missing(which) => {
                let (alone, title) = (&self.parts[0].file, layout.title());
                let packed = self.archives.first().map(|f| &f.path).or(self.unread.first().map(|(path, _)| path));
                Error::data(format!(
                    "the {which} file of {title} is missing: {place} holds {} ({} bytes) alone{}",
                    alone.name(),
                    alone.size,
                    strange_note(&self.strange)
                ))
                .hint(match packed {
                    Some(path) => format!("if it is in {}, name that, or unpack it", file_name(path)),
                    None if !self.strange.is_empty() => "unpack or download the data set again".into(),
                    None => format!("put the {which} file of {title} beside it"),
                })
            }
            Unclear::Ambiguous(expected) => {
                let describe = |part: &Part| {
                    let name = part.file.path.strip_prefix(&self.path).unwrap_or(&part.file.path);
                    format!("{} ({} pictures)", name.display(), part.pictures)
                };
                let list: Vec<String> = self.parts.iter().take(12).map(describe).collect();
                Error::data(format!(
                    "training and test files in {place} are ambiguous: {expected}; found: {}",
                    list.join(", ")
                ))
                .hint("name a place with the files of one data set alone, the test file with `test` in its name")
            }
        }
    }

    /// The class names from the pickle beside the pictures, else from a text file with one name a line, else numbers.
    fn class_names(&self, classes: usize) -> Vec<String> {
        let mut texts: Vec<&DataFile> = self.texts.iter().collect();
        let published = |path: &Path| matches!(file_name(path).as_str(), "fine_label_names.txt" | "batches.meta.txt");
        texts.sort_by_key(|file| !published(&file.path));
        let lists = self.names.iter().cloned().chain(texts.into_iter().filter_map(read_lines));
        lists.into_iter().find(|names| are_class_names(names, classes)).unwrap_or_else(|| {
            let why = format!("no list of {classes} different class names, so classes have numbers");
            match self.texts.iter().find(|file| published(&file.path)) {
                Some(list) => log::warn!("{} is {why}", list.path.display()),
                None => log::info!("{}: {why}", self.path.display()),
            }
            numbered_class_names(classes)
        })
    }
}

/// Whether a file is named as the published ones are: `train.bin`, `data_batch_1`.
fn may_be_meant(file: &DataFile) -> bool {
    let bare =
        file.path.extension().is_none() && ["train", "test", "batch"].iter().any(|word| file.name().contains(word));
    bare || has_extension(&file.path, &["bin"])
}

/// The lines of a text file that is small enough for a list of names.
fn read_lines(file: &DataFile) -> Option<Vec<String>> {
    let bytes = (file.size <= MAX_NAMES_BYTES).then(|| file.bytes().ok())??;
    let text = std::str::from_utf8(&bytes).ok()?;
    Some(text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect())
}

/// Whether these are `classes` different names fit to be shown.
fn are_class_names(names: &[String], classes: usize) -> bool {
    let showable = |name: &String| !name.is_empty() && name.len() <= 64 && !name.contains(char::is_control);
    let different = names.iter().collect::<std::collections::HashSet<_>>().len() == names.len();
    names.len() == classes && different && names.iter().all(showable)
}
