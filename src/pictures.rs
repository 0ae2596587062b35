//! PNG and JPEG pictures of any size, made into the squares that a network sees.

use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use image::error::{LimitError, LimitErrorKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage, imageops};

use crate::files::{self, has_extension};
use crate::{Error, Result};

/// Larger files are refused: a photograph of 100 million pixels has fewer.
pub const MAX_FILE_BYTES: u64 = 128 << 20;

/// Folders within folders that are searched.
const MAX_DEPTH: usize = 16;

/// Wider or taller pictures are refused.
const MAX_SIDE: u32 = 1 << 15;

/// A picture may unpack to this many times its file's size, beside [`SLACK_BYTES`]: a blank PNG, all of one colour, is packed
/// about a thousand times.
const MOST_GROWTH: u64 = 1100;
const SLACK_BYTES: u64 = 64 << 20;

/// Pixels that take more are refused, whatever the size of the file: a photograph of 100 million pixels takes less.
const MAX_PIXEL_BYTES: u64 = 400 << 20;

/// Whether a file that starts with these bytes is a picture of a kind that is read.
pub fn is_picture(start: &[u8]) -> bool {
    format(start).is_some()
}

fn format(start: &[u8]) -> Option<ImageFormat> {
    match start {
        [0x89, b'P', b'N', b'G', ..] => Some(ImageFormat::Png),
        [0xff, 0xd8, 0xff, ..] => Some(ImageFormat::Jpeg),
        _ => None,
    }
}

/// The pictures in a folder and its sub-folders, by content, in the order of their paths. Hidden ones are passed over.
///
/// # Errors
/// A folder that cannot be listed, or one that is nested too deep.
pub fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = waiting.pop() {
        if depth > MAX_DEPTH {
            return Err(Error::data(format!("{} is nested more than {MAX_DEPTH} deep", folder.display()))
                .hint("name a folder with pictures in it"));
        }
        for path in files::list(&folder, usize::MAX)? {
            if path.is_dir() {
                waiting.push((path, depth + 1));
            } else if looks_like_one(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether what is no folder is a picture by its first bytes, or, so that it can be called broken, by its name.
pub fn looks_like_one(path: &Path) -> bool {
    let starts_like_one = || {
        let mut start = [0; 8];
        let read = std::fs::File::open(path).and_then(|mut f| f.read(&mut start));
        read.is_ok_and(|count| is_picture(&start[..count]))
    };
    // Nothing but files is opened: a pipe would wait for ever.
    has_extension(path, &["png", "jpg", "jpeg"]) || (path.is_file() && starts_like_one())
}

/// Whether a file is, by its name, a picture of a kind that is not read.
pub fn is_of_another_kind(path: &Path) -> bool {
    has_extension(path, &["gif", "bmp", "webp", "tif", "tiff", "avif", "heic", "jxl", "ppm"])
}

/// The picture at `path` as a network of pictures of `side` pixels sees it: turned as its camera was held, the shorter side
/// scaled to `side`, the middle cut out, three planes (3, side, side). Transparency is dropped.
///
/// # Errors
/// A data error: a file that cannot be read, is no PNG or JPEG, is damaged, or unpacks to more than its size justifies.
pub fn read(path: &Path, side: usize) -> Result<Vec<u8>> {
    let fail = |what: &str| Error::data(format!("{}: {what}", path.display()));
    let unreadable = |e: std::io::Error| fail("cannot be read").hint("check the path and its permissions").caused_by(e);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(fail("is no file").hint("name a PNG or JPEG file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(fail(&format!("is larger than {} MiB", MAX_FILE_BYTES >> 20)).hint("scale the picture down"));
    }
    // A file that grows is not followed for ever.
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    let Some(format) = format(&bytes) else {
        return Err(fail("is neither a PNG nor a JPEG picture").hint("convert it, or leave it out"));
    };
    if format == ImageFormat::Jpeg && !has_end(&bytes) {
        return Err(fail("is cut short: the end mark of a JPEG is missing").hint("replace it"));
    }
    decode(&bytes, format, side).map_err(|e| match &e {
        ImageError::Limits(_) => fail(&format!(
            "is wider or taller than {MAX_SIDE} pixels, or unpacks to more than {} MiB or than its size justifies",
            MAX_PIXEL_BYTES >> 20
        ))
        .hint("scale it down, or replace it")
        .caused_by(e),
        _ => fail("is damaged").hint("replace it").caused_by(e),
    })
}

/// [`read`] of each of `paths`, in their order, on all processors; `done` after each.
pub fn read_all<P: AsRef<Path> + Sync>(paths: &[P], side: usize, done: impl Fn() + Sync) -> Vec<Result<Vec<u8>>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut some = Vec::new();
        while let Some((i, path)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, paths.get(i)?))) {
            some.push((i, read(path.as_ref(), side)));
            done();
        }
        some
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(paths.len());
    let mut all: Vec<(usize, Result<Vec<u8>>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, picture)| picture).collect()
}

/// Whether a JPEG goes on to its end mark. The decoder does not ask: it makes what is missing grey.
fn has_end(jpeg: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[first, second]) = jpeg.get(at..).and_then(<[u8]>::first_chunk) {
        at += match [first, second] {
            [0xff, 0xd9] => return true,
            // A byte of compressed data, or a mark that stands alone.
            [0xff, 0x00 | 0x01 | 0xd0..=0xd8] => 2,
            [0xff, 0xff] => 1,
            // A segment, with its length. A small picture in one of them has marks of its own.
            [0xff, _] => match jpeg.get(at + 2..).and_then(<[u8]>::first_chunk) {
                Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
                None => return false,
            },
            _ => 1,
        };
    }
    false
}

/// The planes (3, side, side), turned as the camera was held. What the decoder and its result take is bounded; turning and
/// dropping channels take as much again. Of large pictures there is one at a time.
fn decode(bytes: &[u8], format: ImageFormat, side: usize) -> image::ImageResult<Vec<u8>> {
    static LARGE: Mutex<()> = Mutex::new(());
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    // For what comes before the pixels, such as a colour profile.
    limits.max_alloc = Some(SLACK_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    let total = decoder.total_bytes();
    if total > MAX_PIXEL_BYTES.min(SLACK_BYTES + MOST_GROWTH * bytes.len() as u64) {
        return Err(ImageError::Limits(LimitError::from_kind(LimitErrorKind::InsufficientMemory)));
    }
    let _alone = (total > SLACK_BYTES).then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    limits.max_alloc = Some(total + SLACK_BYTES);
    limits.reserve(total)?;
    decoder.set_limits(limits)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(planes(&square(&picture.into_rgb8(), side)))
}

/// The middle of a picture whose shorter side is scaled to `side` pixels.
fn square(picture: &RgbImage, side: usize) -> RgbImage {
    let shorter = picture.width().min(picture.height());
    let (x, y) = ((picture.width() - shorter) / 2, (picture.height() - shorter) / 2);
    let middle = imageops::crop_imm(picture, x, y, shorter, shorter);
    if shorter as usize == side {
        return middle.to_image();
    }
    imageops::resize(&*middle, side as u32, side as u32, imageops::FilterType::Triangle)
}

/// (side, side, 3) to (3, side, side).
fn planes(picture: &RgbImage) -> Vec<u8> {
    let mut out = Vec::with_capacity(picture.len());
    for channel in 0..3 {
        out.extend(picture.pixels().map(|pixel| pixel[channel]));
    }
    out
}

/// A PNG of pictures (3, side, side) in rows of `columns`, with a border of a pixel around each.
///
/// # Errors
/// A data error: there is nothing to show.
pub fn contact_sheet(pictures: &[&[u8]], side: usize, columns: usize) -> Result<Vec<u8>> {
    if pictures.is_empty() {
        return Err(Error::data("there are no pictures to show").hint("check the data set"));
    }
    let (rows, cell) = (pictures.len().div_ceil(columns), side as u32 + 2);
    let mut sheet = RgbImage::new(columns as u32 * cell, rows as u32 * cell);
    for (i, picture) in pictures.iter().enumerate() {
        let (left, top) = ((i % columns) as u32 * cell + 1, (i / columns) as u32 * cell + 1);
        for p in 0..side * side {
            let pixel = [0, 1, 2].map(|channel| picture[channel * side * side + p]);
            sheet.put_pixel(left + (p % side) as u32, top + (p / side) as u32, image::Rgb(pixel));
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|e| Error::data("the contact sheet cannot be encoded").caused_by(e))?;
    Ok(png.into_inner())
}
