//! CIFAR's Python version: dictionaries with an array of pictures and lists of labels, written as pickles.

use super::file::DataFile;
use super::part::{Form, Kind, Layout, Part};
use super::pickle::{self, Value};
use super::{PICTURE_BYTES, Split};
use crate::error::{Error, Result};

/// Whether the first bytes are those of a pickle.
pub(super) fn is_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 2..=5, ..])
}

/// What the pickle `file` holds.
pub(super) fn recognise(file: &DataFile) -> Kind {
    let attempt = || -> Result<Kind> {
        let bytes = file.bytes().map_err(|e| file.unreadable(e))?;
        let value = parse(file, &bytes)?;
        if let Some(names) = class_names(&value) {
            return Ok(Kind::Names(names));
        }
        let Some(layout) = layout(&value) else {
            return match value.get("data") {
                Some(_) => Err(wrong(file, "holds pictures, and neither fine_labels nor labels")),
                None => Ok(Kind::Other),
            };
        };
        let (pictures, _) = contents(file, &value, layout)?;
        let pictures = (pictures.len() / PICTURE_BYTES) as u64;
        Ok(Kind::Pictures(Part { file: file.clone(), layout, form: Form::Python, pictures }))
    };
    attempt().unwrap_or_else(Kind::Broken)
}

/// Adds the pictures and labels of `file` to `split`.
///
/// # Errors
/// A file that has changed since it was recognised.
pub(super) fn read(file: &DataFile, layout: Layout, split: &mut Split) -> Result<()> {
    let bytes = file.bytes().map_err(|e| file.unreadable(e))?;
    let value = parse(file, &bytes)?;
    let (pictures, labels) = contents(file, &value, layout)?;
    split.images.extend_from_slice(pictures);
    split.labels.extend(labels);
    Ok(())
}

fn parse<'b>(file: &DataFile, bytes: &'b [u8]) -> Result<Value<'b>> {
    pickle::parse(bytes).map_err(|refused| {
        wrong(file, format!("is a pickle, but not one of CIFAR's: {}, at byte {}", refused.what, refused.at))
    })
}

fn wrong(file: &DataFile, what: impl std::fmt::Display) -> Error {
    Error::data(format!("{} {what}", file.path.display()))
        .hint("the file is damaged or is something else: unpack it again, or move it out of the folder")
}

/// Which data set a dictionary with pictures is of.
fn layout(value: &Value) -> Option<Layout> {
    value.get("data")?;
    match (value.get("fine_labels"), value.get("labels")) {
        (Some(_), None) => Some(Layout::Cifar100),
        (None, Some(_)) => Some(Layout::Cifar10),
        _ => None,
    }
}

/// The pictures (N, 3, 32, 32) and the class of each.
fn contents<'a>(file: &DataFile, value: &Value<'a>, layout: Layout) -> Result<(&'a [u8], Vec<u16>)> {
    let Some(Value::Array { shape: [rows, columns], data }) = value.get("data") else {
        return Err(wrong(file, "holds data that is no array of bytes"));
    };
    if *columns != PICTURE_BYTES {
        return Err(wrong(file, format!("holds pictures of {columns} bytes, expected {PICTURE_BYTES}")));
    }
    if *rows == 0 {
        return Err(wrong(file, "holds no pictures"));
    }
    let mut classes = Vec::new();
    for label in layout.labels() {
        classes = labels(file, value, label.key, label.classes, *rows)?;
    }
    Ok((data, classes))
}

/// The list `key` of `count` labels, each below `classes`.
fn labels(file: &DataFile, value: &Value, key: &str, classes: u8, count: usize) -> Result<Vec<u16>> {
    let list = value.get(key).and_then(Value::list).ok_or_else(|| wrong(file, format!("holds no list {key}")))?;
    if list.len() != count {
        return Err(wrong(file, format!("holds {} {key} for {count} pictures", list.len())));
    }
    let label = |(i, label): (usize, &Value)| match label {
        Value::Int(class @ 0..) if *class < i64::from(classes) => Ok(*class as u16),
        Value::Int(class) => Err(wrong(
            file,
            format!("has {class} in {key} for picture {i} (counted from 0), expected less than {classes}"),
        )),
        _ => Err(wrong(file, format!("has something that is no number in {key} for picture {i}"))),
    };
    list.iter().enumerate().map(label).collect()
}

/// The names of the classes, from the file `meta` or `batches.meta`.
fn class_names(value: &Value) -> Option<Vec<String>> {
    let list = value.get("fine_label_names").or_else(|| value.get("label_names"))?.list()?;
    let name = |v: &Value| match v {
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(String::from),
        _ => None,
    };
    list.iter().map(name).collect()
}
