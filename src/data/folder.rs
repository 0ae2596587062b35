//! Finding a CIFAR set: in a folder, in one of its immediate sub-folders, or in an archive.
//!
//! Looked at are regular files, each by its content, whatever its name; `choose.rs` decides which of them are for training
//! and for testing. All files of a set lie in one folder or one archive.

use std::fs;
use std::path::{Path, PathBuf};

use super::file::{DataFile, MAX_ENTRIES, MAX_FILE_BYTES, file_name, has_extension};
use super::part::{Form, Kind, Part};
use super::{Contents, Request, SIDE, Split, archive, cifar, classes, numbered_class_names, python};
use crate::error::{Error, Result};
use crate::pictures;

/// Sub-folders that are looked at.
const MAX_FOLDERS: usize = 64;
/// Larger lists of class names are passed over.
const MAX_NAMES_BYTES: u64 = 64 << 10;

const WHAT_IS_READ: &str = "`cqat data fetch cifar100` gets CIFAR-100; or put it or CIFAR-10 there, in the binary or the \
                            Python version, unpacked or as the published .tar.gz; or use the built-in set: embedded";

/// What the files of one folder or archive turned out to be, each list in the order of the names.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) parts: Vec<Part>,
    pub(super) broken: Vec<(PathBuf, Error)>,
    /// Lists of class names out of pickles.
    names: Vec<Vec<String>>,
    archives: Vec<DataFile>,
    zips: Vec<PathBuf>,
    /// Files ending in `.bin` that hold nothing like records.
    pub(super) strange: Vec<DataFile>,
    texts: Vec<DataFile>,
    folders: Vec<PathBuf>,
    entries: usize,
}

/// Reads the CIFAR set in `place`: a folder, one of its immediate sub-folders, or an archive.
pub(super) fn read(place: &Path, request: &Request) -> Result<Contents> {
    let mut folder = match find(place)? {
        Found::Cifar(folder) => folder,
        Found::Nothing(searched) => {
            // Class folders hold other things than CIFAR's files, or more than are searched for these.
            let own = if place.is_dir() { classes::read(place, request)? } else { None };
            return own.ok_or_else(|| nothing_found(place, searched));
        }
    };
    let layout = folder.layout()?;
    let (train, test) = folder.choose(layout)?;
    let names = |parts: &[Part]| parts.iter().map(|p| p.file.name()).collect::<Vec<_>>().join(", ");
    log::debug!("{}: train on {}, test on {}", folder.path.display(), names(&train), test.file.name());
    // An archive is one file on disk, whatever is in it.
    let sources = match folder.path.is_file() {
        true => vec![folder.path.clone()],
        false => train.iter().chain([&test]).map(|part| part.file.path.clone()).collect(),
    };
    Ok(Contents {
        sources,
        name: layout.name().into(),
        class_names: folder.class_names(layout.classes()),
        train: read_parts(&train)?,
        test: read_parts(&[test])?,
    })
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
            _ if start.get(257..262) == Some(b"ustar") => Kind::Archive,
            [b'P', b'K', 3, 4, ..] => Kind::Zip,
            start if pictures::is_picture(start) => Kind::Other,
            start if python::is_pickle(start) => python::recognise(file),
            _ => cifar::recognise(file)?,
        })
    };
    attempt().unwrap_or_else(|e| Kind::Broken(file.unreadable(e)))
}

/// What a search came to.
enum Found {
    Cifar(Folder),
    /// What was searched.
    Nothing(Vec<Folder>),
}

/// The one folder or archive with CIFAR's pictures: `place` itself, then its sub-folders, then an archive in it.
fn find(place: &Path) -> Result<Found> {
    if let Some(file) = regular_file(place) {
        return match recognise(&file) {
            Kind::Archive => in_archive(&file).map(Found::Cifar),
            Kind::Broken(error) => Err(error),
            _ => Err(Error::data(format!("{} is a file, expected a folder or an archive", place.display()))
                .hint("name the folder that holds the training and test files")),
        };
    }
    let top = Folder::scan(place)?;
    if !top.parts.is_empty() {
        return Ok(Found::Cifar(top));
    }
    let mut searched = vec![top];
    if searched[0].folders.len() > MAX_FOLDERS {
        return Ok(Found::Nothing(searched));
    }
    for path in searched[0].folders.clone() {
        match Folder::scan(&path) {
            Ok(folder) => searched.push(folder),
            Err(e) => log::debug!("{e}; passed over"),
        }
    }
    let (mut found, rest): (Vec<Folder>, Vec<Folder>) = searched.into_iter().partition(|f| !f.parts.is_empty());
    match (found.len(), &rest.first().map_or(&[][..], |top| &top.archives)) {
        (0, [one]) => in_archive(one).map(Found::Cifar),
        (0, []) => Ok(Found::Nothing(rest)),
        (0, several) => Err(several_found(place, "archives in", several.iter().map(|f| &f.path))),
        (1, _) => Ok(Found::Cifar(found.swap_remove(0))),
        _ => Err(several_found(place, "sub-folders of", found.iter().map(|f| &f.path))),
    }
}

/// A data set in an archive.
fn in_archive(file: &DataFile) -> Result<Folder> {
    let mut folder = Folder::empty(&file.path);
    let mut files = archive::unpack(&file.path, file.size)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in files {
        folder.entries += 1;
        folder.add(file);
    }
    match folder.parts.is_empty() {
        true => Err(nothing_found(&file.path, vec![folder])),
        false => Ok(folder),
    }
}

fn regular_file(path: &Path) -> Option<DataFile> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(DataFile::on_disk(path.into(), metadata.len()))
}

fn several_found<'p>(place: &Path, what: &str, found: impl Iterator<Item = &'p PathBuf>) -> Error {
    let paths: Vec<String> = found.map(|path| path.display().to_string()).collect();
    Error::data(format!(
        "{} {what} {} hold CIFAR files, expected one: {}",
        paths.len(),
        place.display(),
        paths.join(", ")
    ))
    .hint(format!("name one of them, for example {}", paths[0]))
}

/// The error for a place without a single good file: the most telling thing that was seen.
fn nothing_found(place: &Path, searched: Vec<Folder>) -> Error {
    if let [top] = &searched[..]
        && top.folders.len() > MAX_FOLDERS
    {
        return Error::data(format!(
            "{} holds {} sub-folders and neither a CIFAR file nor pictures, expected at most {MAX_FOLDERS}",
            place.display(),
            top.folders.len()
        ))
        .hint("name the folder that holds the files itself");
    }
    let entries: usize = searched.iter().map(|f| f.entries).sum();
    let strange: Vec<DataFile> = searched.iter().flat_map(|f| &f.strange).take(3).cloned().collect();
    let zip = searched.iter().flat_map(|f| &f.zips).next().cloned();
    if let Some((_, error)) = searched.into_iter().flat_map(|f| f.broken).next() {
        return error;
    }
    let what = if entries == 0 { "is empty" } else { "holds no CIFAR file, nor do its sub-folders" };
    Error::data(format!(
        "{} {what}; expected CIFAR-100 or CIFAR-10, whose binary files are made of records of 3074 or 3073 bytes, or \
         folders of PNG or JPEG pictures, one for each class{}",
        place.display(),
        strange_note(&strange)
    ))
    .hint(match zip {
        Some(path) => format!("{} is a zip archive, which is not read: unpack it; or {WHAT_IS_READ}", path.display()),
        None => WHAT_IS_READ.into(),
    })
}

/// The end of a message about a missing file: what lies there that may have been meant for it.
pub(super) fn strange_note(strange: &[DataFile]) -> String {
    strange.iter().map(|f| format!("; {} ({} bytes) is not made of such records", f.name(), f.size)).collect()
}

/// The error for a path that cannot be listed.
fn not_listed(dir: &Path, e: std::io::Error) -> Error {
    let shown = dir.display();
    if e.kind() == std::io::ErrorKind::NotFound {
        return Error::data(format!("the data folder {shown} does not exist"))
            .hint(format!("check the path, or {WHAT_IS_READ}"));
    }
    Error::data(format!("cannot list the folder {shown}")).hint("check its permissions").caused_by(e)
}

impl Folder {
    fn empty(path: &Path) -> Folder {
        Folder {
            path: path.into(),
            parts: Vec::new(),
            broken: Vec::new(),
            names: Vec::new(),
            archives: Vec::new(),
            zips: Vec::new(),
            strange: Vec::new(),
            texts: Vec::new(),
            folders: Vec::new(),
            entries: 0,
        }
    }

    fn scan(path: &Path) -> Result<Folder> {
        let failed = |e| not_listed(path, e);
        let listing = fs::read_dir(path).map_err(failed)?.take(MAX_ENTRIES + 1);
        let mut paths = listing.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        if paths.len() > MAX_ENTRIES {
            return Err(Error::data(format!(
                "{} holds more than {MAX_ENTRIES} files, expected a folder with a data set and little else",
                path.display()
            ))
            .hint("move the CIFAR files to a folder of their own and name that"));
        }
        paths.sort();
        let mut folder = Folder { entries: paths.len(), ..Folder::empty(path) };
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
            _ if has_extension(&file.path, "txt") => self.texts.push(file),
            Kind::Broken(error) => self.broken.push((file.path, error)),
            Kind::Archive => self.archives.push(file),
            Kind::Zip => self.zips.push(file.path),
            Kind::Other if has_extension(&file.path, "bin") => self.strange.push(file),
            Kind::Other => log::debug!("{}: not a CIFAR file", file.path.display()),
        }
    }

    /// What may hold the file that is missing here.
    pub(super) fn packed(&self) -> Option<&Path> {
        self.archives.first().map(|f| &*f.path).or(self.zips.first().map(|p| &**p))
    }

    /// The class names from the pickle beside the pictures, else from a text file with one name a line, else numbers.
    fn class_names(&self, classes: usize) -> Vec<String> {
        let mut texts: Vec<&DataFile> = self.texts.iter().collect();
        let published = |path: &Path| matches!(file_name(path).as_str(), "fine_label_names.txt" | "batches.meta.txt");
        texts.sort_by_key(|file| !published(&file.path));
        let lists = self.names.iter().cloned().chain(texts.into_iter().filter_map(read_lines));
        lists.into_iter().find(|names| are_class_names(names, classes)).unwrap_or_else(|| {
            log::info!("{}: no list of {classes} class names, so classes have numbers", self.path.display());
            numbered_class_names(classes)
        })
    }
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
