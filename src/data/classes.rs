//! A user's own pictures: a folder for each class, in `train` and `test` (or `val`) folders, or split by seed; Tiny ImageNet too.
//!
//! Pictures are recognised by content. They are decoded and scaled once, on all processors, into a cache beside them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::cache::{Cache, Picture};
use super::file::{Labelled, file_name};
use super::{Contents, Request, Split, picture_bytes};
use crate::error::{Error, Result};
use crate::progress::Count;
use crate::{files, pictures, rng};

/// Folders that may hold the test pictures, beside a folder `train`.
const TEST_FOLDERS: [&str; 4] = ["test", "val", "valid", "validation"];
/// Folder of the pictures within a class, where they do not lie in the class folder itself.
const IMAGES: &str = "images";
/// More classes than any network here has are a mistake.
const MAX_CLASSES: usize = 1 << 16;
/// More files in a folder are an error: at the smallest size, as many pictures take 3 GiB.
const MAX_FILES: usize = 1 << 22;
/// Broken pictures that a message lists.
const LISTED: usize = 20;

/// Folders of classes, or their names as paths, each with its pictures.
type Classes = Vec<(PathBuf, Vec<PathBuf>)>;

/// What was found in a folder of class folders.
struct Found {
    class_names: Vec<String>,
    train: Vec<Labelled>,
    /// `None` where the split is to be made.
    test: Option<Vec<Labelled>>,
}

/// Reads the pictures in `dir`; `None` where there are no folders with pictures in it.
pub(super) fn read(dir: &Path, request: &Request) -> Result<Option<Contents>> {
    let Some(mut found) = find(dir)? else { return Ok(None) };
    let test = match found.test.take() {
        Some(test) => test,
        None => split(&mut found.train, &found.class_names, request)?,
    };
    let files: Vec<Labelled> = found.train.iter().chain(&test).cloned().collect();
    let cache = Cache::of(dir, &files, request.size);
    let images = match cache.read() {
        Some(images) => images,
        None => {
            let progress = Count::start("decoding pictures", files.len() as u64, request.quiet);
            let images = pictures::read_all(&files, request.size, || progress.one_more());
            // What could not be read may be readable next time: that is not remembered.
            let lasts = !images.iter().any(|image| image.as_ref().is_err_and(is_unread));
            let images: Vec<Picture> = images.into_iter().map(|image| image.map_err(|e| why(&e))).collect();
            if lasts {
                cache.write(&images);
            }
            images
        }
    };
    let count = found.train.len();
    let (train, test) = sort_out(files, images, count, request)?;
    if train.is_empty() || test.is_empty() {
        return Err(Error::data(format!(
            "{}: {} training and {} test pictures",
            dir.display(),
            train.len(),
            test.len()
        ))
        .hint("there must be some of each"));
    }
    let name = std::fs::canonicalize(dir).map_or_else(|_| file_name(dir), |dir| file_name(&dir));
    Ok(Some(Contents { name, class_names: found.class_names, train, test, sources: Vec::new() }))
}

/// The class folders, and whether the split is given.
fn find(dir: &Path) -> Result<Option<Found>> {
    let folders = sub_folders(dir)?;
    let named = |wanted: &str| folders.iter().find(|f| file_name(f).eq_ignore_ascii_case(wanted));
    let tests: Vec<&PathBuf> = TEST_FOLDERS.iter().filter_map(|name| named(name)).collect();
    let (Some(train), [_, ..]) = (named("train"), &tests[..]) else {
        let mut place = dir;
        let mut classes = class_folders(&folders)?;
        if let (0, Some(train)) = (classes.len(), named("train")) {
            (place, classes) = (train, class_folders(&sub_folders(train)?)?);
        }
        // One folder of pictures is a heap, not a classification.
        if classes.len() < 2 {
            return Ok(None);
        }
        warn_of(&pictures_of(place)?, "in no class folder");
        return Ok(Some(Found { class_names: names(&classes), train: label(&classes), test: None }));
    };
    let classes = class_folders(&sub_folders(train)?)?;
    let class_names = names(&classes);
    let (test, test_classes) = test_classes(&tests, &class_names)?;
    if classes.is_empty() && test_classes.is_empty() {
        return Ok(None);
    }
    let test_names = names(&test_classes);
    let positions: HashMap<&String, u16> = class_names.iter().zip(0..).collect();
    if let Some(stray) = test_names.iter().find(|name| !positions.contains_key(name)) {
        return Err(Error::data(format!("{} has a class {stray}, which {} has not", test.display(), train.display()))
            .hint(match *stray == IMAGES {
                true => {
                    format!("both need the same class folders; or their labels belong into {}", list_of(test).display())
                }
                false => "both need the same class folders".into(),
            }));
    }
    let tested: HashSet<&String> = test_names.iter().collect();
    if let Some(missing) = class_names.iter().find(|name| !tested.contains(name)) {
        log::warn!("{} has no pictures of class {missing}", test.display());
    }
    let mut test_files = label(&test_classes);
    test_files.iter_mut().for_each(|file| file.class = positions[&test_names[usize::from(file.class)]]);
    Ok(Some(Found { train: label(&classes), class_names, test: Some(test_files) }))
}

/// The folder of test pictures and their classes: of several, the first whose pictures are labelled. A folder `images` alone, where
/// that is no class, says nothing of theirs.
fn test_classes<'p>(tests: &[&'p PathBuf], class_names: &[String]) -> Result<(&'p PathBuf, Classes)> {
    let mut last = None;
    for &test in tests {
        let classes = match annotated(test)? {
            Some(classes) => classes,
            None => class_folders(&sub_folders(test)?)?,
        };
        let unlabelled = names(&classes) == [IMAGES] && !class_names.iter().any(|name| name == IMAGES);
        last = Some((test, classes));
        if !unlabelled {
            break;
        }
        log::warn!("the pictures in {} have no labels: it has no {}", test.display(), list_of(test).display());
    }
    Ok(last.expect("there is a folder at least"))
}

/// The list of labels of a folder that has no class folders.
fn list_of(folder: &Path) -> PathBuf {
    folder.join(format!("{}_annotations.txt", file_name(folder)))
}

/// Pictures in `images` with their classes in a list beside that, as Tiny ImageNet has them: `val_annotations.txt`, a line a
/// picture, its name and its class between tabs.
fn annotated(folder: &Path) -> Result<Option<Classes>> {
    let list = list_of(folder);
    if !list.is_file() {
        return Ok(None);
    }
    let failed = |e| Error::data(format!("cannot read {}", list.display())).hint("check its permissions").caused_by(e);
    let text = std::fs::read_to_string(&list).map_err(failed)?;
    let mut classes: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut words = line.split('\t');
        let (Some(name), Some(class)) = (words.next(), words.next()) else {
            return Err(Error::data(format!("{}:{}: expected a picture, a tab and a class", list.display(), i + 1))
                .hint("unpack the data set again"));
        };
        if [name, class].iter().any(|word| Path::new(word).file_name() != Some(word.as_ref())) {
            return Err(Error::data(format!("{}:{}: expected plain names, without folders", list.display(), i + 1))
                .hint("unpack the data set again"));
        }
        let path = folder.join(IMAGES).join(name);
        if !path.is_file() {
            return Err(Error::data(format!("{}:{}: there is no {}", list.display(), i + 1, path.display()))
                .hint("unpack the data set again"));
        }
        classes.entry(PathBuf::from(class)).or_default().push(path);
    }
    Ok(Some(classes.into_iter().collect()))
}

/// The sub-folders of `dir`, in the order of their names. Hidden ones are passed over.
fn sub_folders(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(dir)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let paths = files::list(dir, MAX_FILES)?;
    match paths.len() > MAX_FILES {
        true => Err(Error::data(format!("{} holds more than {MAX_FILES} files", dir.display()))
            .hint("so many pictures do not fit into memory: take a part of them")),
        false => Ok(paths),
    }
}

/// The files in a folder that are pictures, by content or by name.
fn pictures_of(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| !path.is_dir() && pictures::looks_like_one(path)).collect())
}

/// Tells which files are left out.
fn warn_of(left_out: &[PathBuf], why: &str) {
    if let Some(first) = left_out.first() {
        let more = match left_out.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        log::warn!("left out: {}{more}: {why}", first.display());
    }
}

/// What is missing where there are pictures that make no data set.
pub(super) fn nearly(dir: &Path) -> Option<Error> {
    let folders = sub_folders(dir).ok()?;
    let with_pictures = |folders: Vec<PathBuf>| {
        folders.into_iter().filter(|f| pictures_of(f).is_ok_and(|p| !p.is_empty())).collect::<Vec<_>>()
    };
    let within = |folder: &&PathBuf| sub_folders(folder).is_ok_and(|folders| with_pictures(folders).len() > 1);
    let place = dir.display();
    if let [alone] = &with_pictures(folders.clone())[..] {
        return Some(
            Error::data(format!(
                "{place} holds pictures in one folder alone, {}; expected two classes at least",
                file_name(alone)
            ))
            .hint("put the pictures of each class into a folder of its own"),
        );
    }
    if let Some(folder) = folders.iter().find(within) {
        return Some(
            Error::data(format!("{place} holds no class folders, but {} does", folder.display()))
                .hint(format!("name {}", folder.display())),
        );
    }
    pictures_of(dir).is_ok_and(|pictures| !pictures.is_empty()).then(|| {
        Error::data(format!("{place} holds pictures and no class folders"))
            .hint("put the pictures of each class into a folder of its own")
    })
}

/// Those of `folders` that hold a picture, themselves or in a folder `images`, with all their pictures.
fn class_folders(folders: &[PathBuf]) -> Result<Classes> {
    let (mut classes, mut empty, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for folder in folders {
        let mut place = folder.clone();
        let mut files = pictures_of(&place)?;
        if files.is_empty() && folder.join(IMAGES).is_dir() {
            place = folder.join(IMAGES);
            files = pictures_of(&place)?;
        }
        others.extend(entries(&place)?.into_iter().filter(|path| pictures::is_of_another_kind(path)));
        match files.is_empty() {
            true => empty.push(folder),
            false => classes.push((folder.clone(), files)),
        }
    }
    if !classes.is_empty() {
        empty.iter().for_each(|folder| log::warn!("{} holds no picture, so it is no class", folder.display()));
        warn_of(&others, "neither PNG nor JPEG");
    }
    if classes.len() > MAX_CLASSES {
        return Err(Error::data(format!("{} class folders, expected at most {MAX_CLASSES}", classes.len()))
            .hint("is every picture in a folder of its own? A folder stands for a class"));
    }
    Ok(classes)
}

fn names(classes: &[(PathBuf, Vec<PathBuf>)]) -> Vec<String> {
    classes.iter().map(|(folder, _)| file_name(folder)).collect()
}

/// Every picture with the position of its class.
fn label(classes: &[(PathBuf, Vec<PathBuf>)]) -> Vec<Labelled> {
    let of = |(class, (_, files)): (usize, &(PathBuf, Vec<PathBuf>))| {
        files.iter().map(|path| Labelled { path: path.clone(), class: class as u16 }).collect::<Vec<_>>()
    };
    classes.iter().enumerate().flat_map(of).collect()
}

/// Moves `test_fraction` of every class out of `all`, at least one picture, chosen by the seed.
fn split(all: &mut Vec<Labelled>, class_names: &[String], request: &Request) -> Result<Vec<Labelled>> {
    let mut is_test = vec![false; all.len()];
    let mut classes = vec![Vec::new(); class_names.len()];
    all.iter().enumerate().for_each(|(i, file)| classes[usize::from(file.class)].push(i));
    for (class, (name, members)) in class_names.iter().zip(classes).enumerate() {
        if members.len() < 2 {
            return Err(Error::data(format!("class {name} has {} picture, expected two at least", members.len()))
                .hint("one to train on and one to test with"));
        }
        let count = (members.len() as f64 * f64::from(request.test_fraction)).round() as usize;
        let order = rng::permutation(members.len(), request.seed, rng::TEST_STREAM + class as u64);
        for &k in &order[..count.clamp(1, members.len() - 1)] {
            is_test[members[k as usize]] = true;
        }
    }
    let mut flags = is_test.iter();
    let (test, train) = std::mem::take(all).into_iter().partition(|_| *flags.next().unwrap_or(&false));
    *all = train;
    Ok(test)
}

/// Whether a picture could not be read, which says nothing about it.
fn is_unread(e: &Error) -> bool {
    std::error::Error::source(e).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// An error with its cause in one line.
fn why(e: &Error) -> String {
    match std::error::Error::source(e) {
        Some(cause) => format!("{e} ({cause})"),
        None => e.to_string(),
    }
}

/// The pictures as two splits, the first `train` of them for training. Broken ones are an error, or left out on request.
fn sort_out(files: Vec<Labelled>, images: Vec<Picture>, train: usize, request: &Request) -> Result<(Split, Split)> {
    let broken: Vec<&String> = images.iter().filter_map(|image| image.as_ref().err()).collect();
    if !broken.is_empty() {
        let more = broken.len().saturating_sub(LISTED);
        let list: String = broken.iter().take(LISTED).map(|line| format!("\n  {line}")).collect();
        let rest = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        let message = format!("{} of {} pictures are broken:{list}{rest}", broken.len(), files.len());
        if !request.skip_broken {
            return Err(Error::data(message).hint(
                "repair or remove them, or go on without: --set data.skip_broken=true (data info: --skip-broken)",
            ));
        }
        log::warn!("{message}\n  they are left out");
    }
    let mut splits = [train, files.len() - train].map(|count| Split::with_capacity(request.size, count));
    for (i, (file, image)) in files.into_iter().zip(images).enumerate() {
        let Ok(image) = image else { continue };
        let split = &mut splits[usize::from(i >= train)];
        debug_assert_eq!(image.len(), picture_bytes(request.size));
        split.images.extend_from_slice(&image);
        split.labels.push(file.class);
    }
    Ok(splits.into())
}
