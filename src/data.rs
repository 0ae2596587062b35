//! Data sets: labelled square pictures in memory, read from CIFAR's files or from the set built into the program.
//!
//! [`load_as`] is the way in, and [`load`] its short form. A CIFAR set is recognised by what its files hold, so their names
//! hardly matter; a user's own pictures lie in a folder for each class; the built-in set ([`EMBEDDED`]) makes a first run
//! possible with no download at all.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::digest::hexadecimal;
use crate::error::{Error, Result};
use crate::rng;

mod archive;
mod batches;
mod cache;
mod choose;
mod cifar;
mod classes;
mod embedded;
mod file;
mod folder;
mod part;
mod pickle;
mod python;
mod subset;

use folder::Found;

pub use batches::{Batches, epoch_permutation, in_order, spread};

/// The `dir` of [`load`] that stands for the built-in set. A folder of that name is reached as `./embedded`.
pub const EMBEDDED: &str = "embedded";

/// Colour channels of a picture: red, green, blue.
pub const CHANNELS: usize = 3;

/// Height and width in pixels of the pictures of CIFAR and of the built-in set.
pub const SIDE: usize = 32;

/// The sizes that pictures may have, in words; see [`is_size`].
pub const SIZES: &str = "a multiple of 8 from 16 to 256";

/// Whether networks take pictures of `size` by `size` pixels.
pub fn is_size(size: usize) -> bool {
    size.is_multiple_of(8) && (16..=256).contains(&size)
}

/// Bytes of a picture of [`SIDE`] by [`SIDE`] pixels: the planes R, G, B one after the other, each row by row from the top.
pub const PICTURE_BYTES: usize = picture_bytes(SIDE);

/// Bytes of a picture of `side` by `side` pixels.
pub const fn picture_bytes(side: usize) -> usize {
    CHANNELS * side * side
}

/// N labelled pictures of one size.
#[derive(Clone, PartialEq, Eq)]
pub struct Split {
    /// Height and width of each picture in pixels.
    pub side: usize,
    /// Pixel values 0..=255, (N, 3, side, side): the planes R, G, B one after the other, each row by row from the top.
    pub images: Vec<u8>,
    /// Class of each picture, (N), below the set's `classes`.
    pub labels: Vec<u16>,
}

impl Split {
    /// No pictures yet, and room for `count` of `side` by `side` pixels.
    pub fn with_capacity(side: usize, count: usize) -> Split {
        Split { side, images: Vec::with_capacity(count * picture_bytes(side)), labels: Vec::with_capacity(count) }
    }

    /// These pictures of it.
    pub fn of(&self, indices: &[u32]) -> Split {
        let mut out = Split::with_capacity(self.side, indices.len());
        indices.iter().for_each(|&i| out.images.extend_from_slice(self.image(i as usize)));
        out.labels.extend(indices.iter().map(|&i| self.labels[i as usize]));
        out
    }

    /// Bytes of one picture.
    pub fn picture_bytes(&self) -> usize {
        picture_bytes(self.side)
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Picture `i`, (3, side, side). Panics where `i` is not below [`len`](Self::len).
    pub fn image(&self, i: usize) -> &[u8] {
        &self.images[i * self.picture_bytes()..(i + 1) * self.picture_bytes()]
    }

    /// Copies the pictures `indices` (B) into `images_out` (B, 3, side, side; four bytes a word, as the device takes them)
    /// and their labels into `labels_out` (B).
    ///
    /// Both vectors are overwritten and keep their capacity: after the first full batch nothing is allocated. Panics
    /// where an index is not below [`len`](Self::len).
    pub fn gather(&self, indices: &[u32], images_out: &mut Vec<u32>, labels_out: &mut Vec<u32>) {
        images_out.resize((indices.len() * self.picture_bytes()).div_ceil(4), 0);
        let pictures = bytemuck::cast_slice_mut::<u32, u8>(images_out).chunks_exact_mut(self.picture_bytes());
        pictures.zip(indices).for_each(|(out, &i)| out.copy_from_slice(self.image(i as usize)));
        self.labels_of(indices, labels_out);
    }

    /// The labels of `indices`, as [`gather`](Self::gather) gives them.
    pub fn labels_of(&self, indices: &[u32], labels_out: &mut Vec<u32>) {
        labels_out.clear();
        labels_out.extend(indices.iter().map(|&i| u32::from(self.labels[i as usize])));
    }

    /// Moves the pictures `chosen` (by index, N flags) into a split of their own; both keep the original order.
    fn take(&mut self, chosen: &[bool]) -> Split {
        let count = chosen.iter().filter(|&&c| c).count();
        let bytes = self.picture_bytes();
        let mut taken = Split::with_capacity(self.side, count);
        let mut kept = 0;
        for (i, &is_chosen) in chosen.iter().enumerate() {
            if is_chosen {
                taken.images.extend_from_slice(self.image(i));
                taken.labels.push(self.labels[i]);
            } else {
                self.images.copy_within(i * bytes..(i + 1) * bytes, kept * bytes);
                self.labels[kept] = self.labels[i];
                kept += 1;
            }
        }
        self.images.truncate(kept * bytes);
        self.labels.truncate(kept);
        taken
    }
}

impl std::fmt::Debug for Split {
    /// The number of pictures: their bytes would fill the screen.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Split").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A data set in memory, ready for training. All its pictures have one size.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// `cifar100`, `cifar10`, `fashion-mnist-mini`, or the name of the folder with the user's own pictures.
    pub name: String,
    /// Number of classes; every label is below it.
    pub classes: usize,
    /// Training pictures, without the validation pictures; of the rest those of [`Request::subset`].
    pub train: Split,
    /// Pictures held out of the training file; `None` where none were asked for.
    pub val: Option<Split>,
    /// Test pictures.
    pub test: Split,
    /// Name of each class, `classes` of them.
    pub class_names: Vec<String>,
    /// Mean of each channel over the whole training file, in units where 255 is 1.
    pub mean: [f32; CHANNELS],
    /// Standard deviation (population) of each channel, in the same units and over the same pictures.
    ///
    /// 1 for a channel that is constant, so that dividing by it is always safe.
    pub std: [f32; CHANNELS],
    /// The files on disk that it came from; none for the built-in set and for a user's own pictures.
    pub sources: Vec<PathBuf>,
    /// SHA-256 of the content, 64 hexadecimal digits: training images, training labels (u16, little-endian), test
    /// images, test labels. Taken before validation pictures are held out and a subset is chosen: the same CIFAR files give the
    /// same value.
    /// That of a user's own pictures depends on the rest of the [`Request`] as well: on the size to which they are scaled, and
    /// on how they are split.
    pub sha256: String,
}

impl DataSet {
    /// Height and width of a picture in pixels.
    pub fn size(&self) -> usize {
        self.train.side
    }
}

/// What a reader of a format hands over: everything that is read rather than computed.
struct Contents {
    name: String,
    class_names: Vec<String>,
    train: Split,
    test: Split,
    /// See [`DataSet::sources`].
    sources: Vec<PathBuf>,
}

/// Which data set to load, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// [`EMBEDDED`], or a folder or archive.
    pub dir: String,
    /// Height and width of the pictures in pixels. CIFAR and the built-in set have [`SIDE`]; a user's own are scaled.
    pub size: usize,
    /// Training pictures to hold out for validation.
    pub validation: usize,
    /// Training pictures to keep of the rest; `None`: all.
    pub subset: Option<usize>,
    /// Share of a user's own pictures that becomes the test set, where they are not split yet.
    pub test_fraction: f32,
    /// Leave out pictures that cannot be decoded, instead of refusing the set.
    pub skip_broken: bool,
    /// Seed of the choice of validation and test pictures.
    pub seed: u64,
    /// No progress is shown while pictures are decoded.
    pub quiet: bool,
}

impl Request {
    /// The pictures in `dir` as they come.
    pub fn of(dir: &str) -> Request {
        Request {
            dir: dir.into(),
            size: SIDE,
            validation: 0,
            subset: None,
            test_fraction: 0.2,
            skip_broken: false,
            seed: 0,
            quiet: true,
        }
    }
}

/// [`load_as`] of pictures of CIFAR's size.
///
/// # Errors
/// As [`load_as`].
pub fn load(dir: &str, validation: usize, seed: u64) -> Result<DataSet> {
    load_as(&Request { validation, seed, ..Request::of(dir) })
}

/// Loads a data set: the built-in one for [`EMBEDDED`]; else the CIFAR-100 or CIFAR-10 files in the folder or archive, or in
/// one of the folder's immediate sub-folders; else the user's own pictures, in a folder for each class; else CIFAR's files in
/// the one archive in the folder.
///
/// `validation` pictures are held out of the training pictures: the first that many of a permutation that depends on
/// `seed` and the number of training pictures alone. Of the rest `subset` are kept, as many of each class as can be: the same for
/// every seed, but for those that are held out. All parts keep the order of the file.
///
/// # Errors
/// [`ErrorKind::Data`](crate::error::ErrorKind::Data) where the folder or files are missing, damaged or ambiguous;
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) where `validation` leaves no picture to train on, there are fewer than `subset`, the size is not
/// one of [`SIZES`], or the pictures are of a fixed size that is not the one asked for.
pub fn load_as(request: &Request) -> Result<DataSet> {
    let Request { dir, size, validation, subset, seed, .. } = request;
    if !is_size(*size) {
        return Err(Error::config(format!("pictures of {size} x {size} pixels asked for, expected {SIZES} pixels"))
            .hint("32 is the size of CIFAR's pictures"));
    }
    let contents = if dir == EMBEDDED { embedded::read()? } else { read(dir.as_ref(), request)? };
    let Contents { name, class_names, mut train, test, sources } = contents;
    if train.side != *size {
        let side = train.side;
        return Err(Error::config(format!("{name} has pictures of {side} x {side} pixels, but data.size is {size}"))
            .hint(format!(
                "--set data.size={side} (data info: --size {side}); only pictures in folders of their own are scaled"
            )));
    }
    let (mean, std) = channel_statistics(&train);
    let sha256 = content_hash(&[&train, &test]);
    let held_out = held_out(train.len(), *validation, *seed)?;
    let kept = subset.map(|count| subset::choose(&train.labels, &held_out, count)).transpose()?;
    let val = (*validation > 0).then(|| train.take(&held_out));
    if let Some(kept) = kept {
        let rest: Vec<bool> = kept.iter().zip(&held_out).filter(|(_, held)| !**held).map(|(kept, _)| *kept).collect();
        train = train.take(&rest);
    }
    log::info!("{name}: {} training, {} test pictures, sha256 {}", train.len(), test.len(), &sha256[..12]);
    Ok(DataSet { name, classes: class_names.len(), train, val, test, class_names, mean, std, sources, sha256 })
}

/// Reads what is in `place`, a folder or an archive.
fn read(place: &Path, request: &Request) -> Result<Contents> {
    let searched = match folder::find(place)? {
        Found::Set(cifar) => return cifar.read(),
        Found::Nothing(searched) => searched,
    };
    // Class folders go before archives: what they were unpacked from may lie beside them.
    match classes::read(place, request)? {
        Some(contents) => Ok(contents),
        None => searched.in_archive()?.read(),
    }
}

/// Which of `len` training pictures are for validation; see [`load_as`].
fn held_out(len: usize, validation: usize, seed: u64) -> Result<Vec<bool>> {
    let mut chosen = vec![false; len];
    if validation == 0 {
        return Ok(chosen);
    }
    if validation >= len {
        return Err(Error::config(format!(
            "{validation} validation pictures asked for, expected fewer than the {len} training pictures"
        ))
        .hint(format!("hold out at most {} pictures; a tenth of them is usual", len - 1)));
    }
    for &i in &rng::permutation(len, seed, rng::VALIDATION_STREAM)[..validation] {
        chosen[i as usize] = true;
    }
    Ok(chosen)
}

/// Mean and standard deviation of each channel; exact sums in integers, rounded once to `f32` at the end.
fn channel_statistics(split: &Split) -> ([f32; CHANNELS], [f32; CHANNELS]) {
    let mut sums = [0u64; CHANNELS];
    let mut squares = [0u64; CHANNELS];
    let plane_bytes = split.side * split.side;
    for (i, plane) in split.images.chunks_exact(plane_bytes).enumerate() {
        // 256 * 256 * 255^2 fits in u32 (no picture is larger), which lets the compiler use vectors.
        let (sum, square) =
            plane.iter().fold((0u32, 0u32), |(s, q), &v| (s + u32::from(v), q + u32::from(v) * u32::from(v)));
        sums[i % CHANNELS] += u64::from(sum);
        squares[i % CHANNELS] += u64::from(square);
    }
    let count = (split.len() * plane_bytes) as u64;
    let mean = sums.map(|s| (s as f64 / count as f64 / 255.0) as f32);
    let std = std::array::from_fn(|c| {
        let (n, s, q) = (u128::from(count), u128::from(sums[c]), u128::from(squares[c]));
        let variance_n2 = n * q - s * s; // variance * n^2, never negative
        if variance_n2 == 0 { 1.0 } else { ((variance_n2 as f64).sqrt() / count as f64 / 255.0) as f32 }
    });
    (mean, std)
}

/// SHA-256 over the images and labels of each split in turn, in hexadecimal.
fn content_hash(splits: &[&Split]) -> String {
    let mut hash = Sha256::new();
    for split in splits {
        hash.update(&split.images);
        let labels: Vec<u8> = split.labels.iter().flat_map(|l| l.to_le_bytes()).collect();
        hash.update(&labels);
    }
    hexadecimal(&hash.finalize())
}

/// `class 0`, `class 1`, ...: for files that come without names.
fn numbered_class_names(classes: usize) -> Vec<String> {
    (0..classes).map(|c| format!("class {c}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_channel_has_deviation_one() {
        let (side, plane) = (6, 36);
        let mut images = vec![0u8; 3 * plane];
        images[..plane].fill(255);
        images[plane..plane + plane / 2].fill(51);
        let (mean, std) = channel_statistics(&Split { side, images, labels: vec![0] });
        assert_eq!(mean, [1.0, 0.1, 0.0]);
        assert_eq!(std, [1.0, 0.1, 1.0]);
    }

    #[test]
    fn taking_pictures_keeps_the_order_of_both_parts() {
        let images = (0..5u8).flat_map(|i| [i; PICTURE_BYTES]).collect();
        let mut split = Split { side: SIDE, images, labels: vec![0, 1, 2, 3, 4] };
        let taken = split.take(&[false, true, false, false, true]);
        assert_eq!(taken.labels, [1, 4]);
        assert_eq!(split.labels, [0, 2, 3]);
        assert_eq!([taken.image(1)[0], split.image(1)[3071], split.image(2)[0]], [4, 2, 3]);
        assert_eq!(split.images.len(), 3 * PICTURE_BYTES);
    }
}
