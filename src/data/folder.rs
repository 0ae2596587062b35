//! Finding a CIFAR set in a folder: which files hold records, and which of them are for training and for testing.
//!
//! Looked at are the regular files in the folder and in its immediate sub-folders, each by its content. All files of a
//! set lie in one folder. Names decide one thing alone: a file with a word that starts with `test` in its name is the
//! test file.

use std::fs;
use std::path::{Path, PathBuf};

use super::cifar::{self, Kind, Layout};
use super::{Contents, numbered_class_names};
use crate::error::{Error, Result};

/// Entries of one folder that are looked at.
const MAX_ENTRIES: usize = 1000;
/// Sub-folders that are looked at.
const MAX_FOLDERS: usize = 64;
/// Larger files are passed over: seven times the largest published file.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Larger lists of class names are passed over.
const MAX_NAMES_BYTES: u64 = 64 << 10;

const BINARY_VERSION: &str = "unpack the binary version of CIFAR-100 (train.bin, test.bin) or CIFAR-10 \
                              (data_batch_1.bin to data_batch_5.bin, test_batch.bin) there, or use the \
                              built-in set: embedded";

/// A file of records and its size in bytes.
type RecordFile = (PathBuf, u64);

/// What the files of one folder turned out to be, each list in the order of the names.
struct Folder {
    path: PathBuf,
    records: Vec<(Layout, RecordFile)>,
    broken: Vec<(PathBuf, Error)>,
    packed: Vec<(PathBuf, &'static str)>,
    /// Files ending in `.bin` that hold nothing like records.
    strange: Vec<RecordFile>,
    texts: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    entries: usize,
}

/// Reads the CIFAR set in `dir` or in one of its immediate sub-folders.
pub(super) fn read(dir: &Path) -> Result<Contents> {
    let mut folder = find(dir)?;
    let layout = folder.layout()?;
    let (train, test) = folder.choose(layout)?;
    let names = |files: &[RecordFile]| files.iter().map(|(p, _)| file_name(p)).collect::<Vec<_>>().join(", ");
    log::debug!("{}: train on {}, test on {}", folder.path.display(), names(&train), file_name(&test.0));
    Ok(Contents {
        name: layout.name(),
        class_names: folder.class_names(layout.classes()),
        train: cifar::read(&train, layout)?,
        test: cifar::read(&[test], layout)?,
    })
}

/// The one folder with files of records: `dir` itself before its sub-folders.
fn find(dir: &Path) -> Result<Folder> {
    let top = Folder::scan(dir)?;
    if !top.records.is_empty() {
        return Ok(top);
    }
    if top.folders.len() > MAX_FOLDERS {
        return Err(Error::data(format!(
            "{} holds {} sub-folders and no CIFAR file of its own, expected at most {MAX_FOLDERS}",
            dir.display(),
            top.folders.len()
        ))
        .hint("name the folder that holds the files itself"));
    }
    let mut searched = vec![top];
    for path in searched[0].folders.clone() {
        match Folder::scan(&path) {
            Ok(folder) => searched.push(folder),
            Err(e) => log::warn!("{e}; passed over"),
        }
    }
    let (mut found, rest): (Vec<Folder>, Vec<Folder>) = searched.into_iter().partition(|f| !f.records.is_empty());
    match found.len() {
        0 => Err(nothing_found(dir, rest)),
        1 => Ok(found.swap_remove(0)),
        _ => {
            let paths: Vec<String> = found.iter().map(|f| f.path.display().to_string()).collect();
            Err(Error::data(format!(
                "{} sub-folders of {} hold CIFAR files, expected one: {}",
                found.len(),
                dir.display(),
                paths.join(", ")
            ))
            .hint(format!("name one of them, for example {}", paths[0])))
        }
    }
}

/// The error for folders without a single good file: the most telling thing that was seen.
fn nothing_found(dir: &Path, searched: Vec<Folder>) -> Error {
    let entries: usize = searched.iter().map(|f| f.entries).sum();
    let strange: Vec<RecordFile> = searched.iter().flat_map(|f| &f.strange).take(3).cloned().collect();
    let packed = searched.iter().flat_map(|f| &f.packed).next().map(|(path, what)| packed_hint(path, what));
    if let Some((_, error)) = searched.into_iter().flat_map(|f| f.broken).next() {
        return error;
    }
    let what = if entries == 0 { "is empty" } else { "holds no CIFAR file, nor do its sub-folders" };
    Error::data(format!(
        "{} {what}; expected files made of records of 3074 bytes (CIFAR-100) or 3073 bytes (CIFAR-10){}",
        dir.display(),
        strange_note(&strange)
    ))
    .hint(packed.unwrap_or_else(|| BINARY_VERSION.into()))
}

/// The end of a message about a missing file: what lies there that may have been meant for it.
fn strange_note(strange: &[RecordFile]) -> String {
    strange
        .iter()
        .map(|(path, size)| format!("; {} ({size} bytes) is not made of such records", file_name(path)))
        .collect()
}

fn packed_hint(path: &Path, what: &str) -> String {
    format!("{} is {what}: only the unpacked binary version of CIFAR is read; {BINARY_VERSION}", path.display())
}

/// The error for a path that is no folder or cannot be listed.
fn not_listed(dir: &Path, e: std::io::Error) -> Error {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let shown = dir.display();
    if e.kind() == NotFound {
        return Error::data(format!("the data folder {shown} does not exist"))
            .hint(format!("check the path, or {BINARY_VERSION}"));
    }
    if e.kind() != NotADirectory && !dir.is_file() {
        return Error::data(format!("cannot list the folder {shown}")).hint("check its permissions").caused_by(e);
    }
    let file = fs::metadata(dir).ok().filter(fs::Metadata::is_file);
    let hint = match file.map(|m| cifar::recognise(dir, m.len())) {
        Some(Kind::Packed(what)) => packed_hint(dir, what),
        _ => "name the folder that holds the training and test files".into(),
    };
    Error::data(format!("{shown} is a file, expected a folder")).hint(hint)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a word of the file's name starts with `test`: `test.bin` and `cifar_Test2`, but not `latest.bin`.
fn is_named_test(path: &Path) -> bool {
    let name = file_name(path).to_ascii_lowercase();
    name.match_indices("test").any(|(at, _)| !name[..at].ends_with(char::is_alphabetic))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

impl Folder {
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
        let mut folder = Folder {
            path: path.into(),
            records: Vec::new(),
            broken: Vec::new(),
            packed: Vec::new(),
            strange: Vec::new(),
            texts: Vec::new(),
            folders: Vec::new(),
            entries: paths.len(),
        };
        paths.into_iter().for_each(|path| folder.add(path));
        Ok(folder)
    }

    /// Files `path` under what it is. Anything but folders and regular files is never opened.
    fn add(&mut self, path: PathBuf) {
        let Ok(metadata) = fs::metadata(&path) else {
            log::debug!("{}: cannot be looked at, passed over", path.display());
            return;
        };
        if metadata.is_dir() {
            self.folders.push(path);
        } else if metadata.is_file() && metadata.len() > MAX_FILE_BYTES {
            log::warn!("{}: larger than {MAX_FILE_BYTES} bytes, passed over", path.display());
        } else if metadata.is_file() {
            match cifar::recognise(&path, metadata.len()) {
                Kind::Records(layout) => self.records.push((layout, (path, metadata.len()))),
                _ if has_extension(&path, "txt") => self.texts.push(path),
                Kind::Broken(error) => self.broken.push((path, error)),
                Kind::Packed(what) => self.packed.push((path, what)),
                Kind::Other if has_extension(&path, "bin") => self.strange.push((path, metadata.len())),
                Kind::Other => log::debug!("{}: not a CIFAR file", path.display()),
            }
        }
    }

    /// The layout that all files of records share.
    fn layout(&self) -> Result<Layout> {
        let first = self.records[0].0;
        match self.records.iter().find(|(layout, _)| *layout != first) {
            None => Ok(first),
            Some((_, (other, _))) => Err(Error::data(format!(
                "{} holds files of CIFAR-10 and of CIFAR-100 ({} and {}), expected one data set",
                self.path.display(),
                file_name(&self.records[0].1.0),
                file_name(other)
            ))
            .hint("give each data set a folder of its own and name one of them")),
        }
    }

    /// Which files are for training, in the order of their names, and which is for testing.
    ///
    /// A damaged file among them is an error of its own: without it the choice would be a wrong one.
    fn choose(&mut self, layout: Layout) -> Result<(Vec<RecordFile>, RecordFile)> {
        let choice = match layout {
            Layout::Cifar100 => self.choose_cifar100(),
            Layout::Cifar10 => self.choose_cifar10(),
        };
        let damaged = self.broken.iter().position(|(path, _)| choice.is_err() || has_extension(path, "bin"));
        match damaged {
            Some(i) => Err(self.broken.swap_remove(i).1),
            None => choice,
        }
    }

    /// CIFAR-100: two files, the larger for training; of two equal ones, the one named test is for testing.
    fn choose_cifar100(&self) -> Result<(Vec<RecordFile>, RecordFile)> {
        let [a, b] = match &self.records[..] {
            [(_, one)] => {
                let missing = if is_named_test(&one.0) { "training" } else { "test" };
                return Err(self.missing(missing, "CIFAR-100"));
            }
            [(_, a), (_, b)] => [a, b],
            _ => return Err(self.ambiguous("expected one CIFAR-100 file for training and a smaller one for testing")),
        };
        let smaller = (a.1 != b.1).then_some(if a.1 < b.1 { a } else { b });
        let named = match [a, b].map(|(path, _)| is_named_test(path)) {
            [true, false] => Some(a),
            [false, true] => Some(b),
            _ => None,
        };
        let test = match (smaller, named) {
            (Some(smaller), Some(named)) if smaller != named => {
                return Err(self.ambiguous("expected the file named test to be the smaller one"));
            }
            (None, None) => return Err(self.ambiguous("expected two sizes, or one file with `test` in its name")),
            (smaller, named) => smaller.or(named).unwrap_or(b),
        };
        let train = if test == a { b } else { a };
        Ok((vec![train.clone()], test.clone()))
    }

    /// CIFAR-10: the file named test, and five others of one size (or a single one) for training.
    fn choose_cifar10(&self) -> Result<(Vec<RecordFile>, RecordFile)> {
        let files = self.records.iter().map(|(_, file)| file.clone());
        // `MyTest.bin` will do where no name is better.
        let exact = self.records.iter().any(|(_, (path, _))| is_named_test(path));
        let anywhere = |path: &Path| file_name(path).to_ascii_lowercase().contains("test");
        let odd = self.smaller_one();
        let is_test = |file: &RecordFile| match (exact, &odd) {
            (true, _) => is_named_test(&file.0),
            (false, Some(odd)) => file == odd,
            (false, None) => anywhere(&file.0),
        };
        let (mut tests, train): (Vec<_>, Vec<_>) = files.partition(is_test);
        match (train.len(), tests.len()) {
            (0, 1) => return Err(self.missing("training", "CIFAR-10")),
            (1, 0) => return Err(self.missing("test", "CIFAR-10")),
            (_, 0) => return Err(self.ambiguous("expected one CIFAR-10 file with `test` in its name, found none")),
            (_, 2..) => return Err(self.ambiguous("expected one CIFAR-10 file with `test` in its name, found several")),
            (1, _) => log::warn!("{}: one training file, the published set has five", self.path.display()),
            (5, _) => {}
            _ => return Err(self.ambiguous("expected five CIFAR-10 files (or a single one) beside the test file")),
        }
        if train.iter().any(|(_, size)| *size != train[0].1) {
            return Err(self.ambiguous("expected the training files of CIFAR-10 to have one size"));
        }
        Ok((train, tests.swap_remove(0)))
    }

    /// The one of several files that is smaller than all others, which have one size.
    fn smaller_one(&self) -> Option<RecordFile> {
        let mut files: Vec<&RecordFile> = self.records.iter().map(|(_, file)| file).collect();
        files.sort_by_key(|(_, size)| *size);
        let [first, second, .., last] = files[..] else { return None };
        (first.1 < second.1 && second.1 == last.1).then(|| first.clone())
    }

    fn missing(&self, which: &str, title: &str) -> Error {
        let (path, size) = &self.records[0].1;
        let hint = match self.packed.first() {
            Some((path, what)) => packed_hint(path, what),
            None => format!("put the {which} file of {title} (binary version) beside it"),
        };
        Error::data(format!(
            "the {which} file of {title} is missing: {} holds {} ({size} bytes) alone{}",
            self.path.display(),
            file_name(path),
            strange_note(&self.strange)
        ))
        .hint(hint)
    }

    /// The files of records cannot be told apart; `expected` says what would have decided.
    fn ambiguous(&self, expected: &str) -> Error {
        let list: Vec<String> = self
            .records
            .iter()
            .take(12)
            .map(|(_, (path, size))| format!("{} ({size} bytes)", file_name(path)))
            .collect();
        Error::data(format!(
            "training and test files in {} are ambiguous: {expected}; there are {}: {}",
            self.path.display(),
            self.records.len(),
            list.join(", ")
        ))
        .hint("leave the files of one data set alone in the folder, the test file with `test` in its name")
    }

    /// The class names from a text file with one name a line, or numbers where no file has the right count.
    fn class_names(&self, classes: usize) -> Vec<String> {
        let mut texts: Vec<&PathBuf> = self.texts.iter().collect();
        let published = |path: &Path| matches!(file_name(path).as_str(), "fine_label_names.txt" | "batches.meta.txt");
        texts.sort_by_key(|path| !published(path));
        let names = texts.iter().find_map(|path| read_names(path, classes));
        names.unwrap_or_else(|| {
            log::info!("{}: no text file with {classes} class names, so classes have numbers", self.path.display());
            numbered_class_names(classes)
        })
    }
}

/// The lines of a text file, where they are `classes` different names fit to be shown.
fn read_names(path: &Path, classes: usize) -> Option<Vec<String>> {
    if !fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= MAX_NAMES_BYTES) {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let names: Vec<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect();
    let showable = |name: &String| name.len() <= 64 && !name.contains(char::is_control);
    let different = names.iter().collect::<std::collections::HashSet<_>>().len() == names.len();
    (names.len() == classes && different && names.iter().all(showable)).then_some(names)
}
