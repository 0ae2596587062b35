//! A user's own pictures: class folders as a data set, and the classification of single pictures.

#[path = "pictures/broken.rs"]
mod broken;
mod common;

use std::path::Path;

use common::{cqat, parsed};
use cqat::data::{DataSet, Request, load_as};
use cqat::{Error, ErrorKind, pictures};
use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

const RED: Rgb<u8> = Rgb([250, 10, 20]);
const GREEN: Rgb<u8> = Rgb([10, 240, 30]);
const BLUE: Rgb<u8> = Rgb([20, 30, 230]);

/// Writes a picture whose pixels are `colour` with a shade of their own.
fn paint(path: &Path, width: u32, height: u32, colour: impl Fn(u32, u32) -> Rgb<u8>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let format = if path.to_str().unwrap().ends_with("png") { ImageFormat::Png } else { ImageFormat::Jpeg };
    RgbImage::from_fn(width, height, colour).save_with_format(path, format).unwrap();
}

fn load(dir: &Path, change: impl FnOnce(&mut Request)) -> cqat::Result<DataSet> {
    let mut request = Request::of(dir.to_str().unwrap());
    change(&mut request);
    load_as(&request)
}

/// Ten pictures of each of three colours, of many sizes, in folders by their colour.
fn colours(dir: &Path) {
    for (name, colour) in [("blue", BLUE), ("green", GREEN), ("red", RED)] {
        for i in 0..10u32 {
            let end = if i % 2 == 0 { "png" } else { "jpg" };
            paint(&dir.join(name).join(format!("{i}.{end}")), 20 + 9 * i, 70 - 5 * i, |_, _| colour);
        }
    }
}

#[track_caller]
fn says(error: Error, kind: ErrorKind, message: &str, hint: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(message), "message: {error}\nexpected: {message}");
    let found = error.hint_text().expect("every error has a hint");
    assert!(found.contains(hint), "hint: {found}\nexpected: {hint}");
}

/// Mean of each plane.
fn means(image: &[u8]) -> [u32; 3] {
    let plane = image.len() / 3;
    [0, 1, 2].map(|c| image[c * plane..][..plane].iter().map(|v| u32::from(*v)).sum::<u32>() / plane as u32)
}

fn near(image: &[u8], colour: Rgb<u8>) -> bool {
    means(image).iter().zip(colour.0).all(|(m, c)| m.abs_diff(u32::from(c)) < 12)
}

#[test]
fn the_shorter_side_is_scaled_and_the_middle_cut_out() {
    let dir = tempfile::tempdir().unwrap();
    let thirds = |at: u32, of: u32| [RED, GREEN, BLUE][(3 * at / of) as usize];
    for (name, width, height) in
        [("wide.png", 96, 32), ("wide.jpg", 300, 100), ("tall.png", 50, 150), ("tall.jpeg", 32, 96)]
    {
        let path = dir.path().join(name);
        paint(&path, width, height, |x, y| if width > height { thirds(x, width) } else { thirds(y, height) });
        for side in [16, 32, 64] {
            let image = pictures::read(&path, side).unwrap();
            assert_eq!(image.len(), 3 * side * side);
            assert!(near(&image, GREEN), "{name} at {side}: {:?}", means(&image));
        }
    }
    // A picture of the right size stays what it is, to the byte.
    let path = dir.path().join("same.png");
    paint(&path, 32, 32, |x, y| Rgb([x as u8, y as u8, 7]));
    let image = pictures::read(&path, 32).unwrap();
    assert_eq!([image[5], image[32 * 9 + 5], image[1024 + 32 * 9 + 5], image[3071]], [5, 5, 9, 7]);
    // Grey, grey with alpha, and 16 bits.
    let grey = image::GrayImage::from_pixel(40, 40, image::Luma([77]));
    grey.save(dir.path().join("grey.png")).unwrap();
    assert_eq!(means(&pictures::read(&dir.path().join("grey.png"), 32).unwrap()), [77; 3]);
    let deep = image::ImageBuffer::from_pixel(40, 40, image::LumaA([0x4d00u16, 0x8000]));
    image::DynamicImage::ImageLumaA16(deep).save(dir.path().join("deep.png")).unwrap();
    assert_eq!(means(&pictures::read(&dir.path().join("deep.png"), 32).unwrap()), [77; 3]);
}

#[test]
fn class_folders_are_split_by_seed() {
    let dir = tempfile::tempdir().unwrap();
    colours(dir.path());
    std::fs::write(dir.path().join("red/notes.txt"), "not a picture").unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let set = load(dir.path(), |_| {}).unwrap();
    assert_eq!((set.classes, &set.class_names[..]), (3, &["blue", "green", "red"].map(String::from)[..]));
    assert_eq!((set.train.len(), set.test.len(), set.size()), (24, 6, 32));
    assert_eq!(set.test.labels, [0, 0, 1, 1, 2, 2], "a fifth of every class");
    for split in [&set.train, &set.test] {
        assert!((0..split.len()).all(|i| near(split.image(i), [BLUE, GREEN, RED][usize::from(split.labels[i])])));
    }
    let same = load(dir.path(), |_| {}).unwrap();
    assert_eq!(same.sha256, set.sha256);
    assert_ne!(load(dir.path(), |r| r.seed = 1).unwrap().sha256, set.sha256);
    assert_eq!(load(dir.path(), |r| r.test_fraction = 0.95).unwrap().train.len(), 3, "one of each is left");
    assert_eq!(load(dir.path(), |r| r.test_fraction = 0.01).unwrap().test.len(), 3);
    let held = load(dir.path(), |r| r.validation = 4).unwrap();
    assert_eq!((held.train.len(), held.val.unwrap().len(), held.test.len()), (20, 4, 6));
    let large = load(dir.path(), |r| r.size = 64).unwrap();
    assert_eq!((large.size(), large.train.images.len()), (64, 24 * 3 * 64 * 64));
}

#[test]
fn a_folder_for_training_alone_is_split() {
    let dir = tempfile::tempdir().unwrap();
    colours(&dir.path().join("train"));
    let set = load(dir.path(), |_| {}).unwrap();
    assert_eq!((set.classes, set.train.len(), set.test.len()), (3, 24, 6));
}

/// Whatever names files have, and whatever lies where the cache would.
#[cfg(target_os = "linux")]
#[test]
fn strange_names_and_a_pipe_for_a_cache() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = trained();
    let dir = place.path().join("colours");
    std::fs::rename(dir.join("red"), dir.join("robin's \u{1b}[31mred")).unwrap();
    std::fs::remove_file(dir.join(".cqat-pictures-16.cache")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(dir.join(".cqat-pictures-16.cache")).status().unwrap().success());
    let set = load(&dir, |r| r.size = 16).unwrap();
    assert_eq!(set.class_names, ["blue", "green", "robin's \u{1b}[31mred"]);
    assert_eq!(load(&dir, |r| r.size = 16).unwrap().sha256, set.sha256);
    let ran = cqat(place.path(), &["data", "info", "colours", "--size", "16"]).ok();
    assert!(ran.out.contains("robin's \\u{1b}[31mred") && !ran.out.contains('\u{1b}'), "{}", ran.out);
    let ran = cqat(place.path(), &["data", "info", "colours", "--test-fraction", "0.5", "--seed", "7", "--json"]).ok();
    let expected = load(&dir, |r| (r.test_fraction, r.seed) = (0.5, 7)).unwrap();
    let info = parsed(&ran.out);
    assert_eq!((&info["test"], &info["sha256"]), (&15.into(), &expected.sha256.as_str().into()));
    // Not every name is UTF-8.
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff.png");
    std::fs::copy(dir.join("blue/0.png"), place.path().join(odd)).unwrap();
    let mut infer = common::on_device(place.path(), &["infer", "run", "--json"]);
    let answers = parsed(
        &common::Ran::of({
            infer.arg(odd);
            infer
        })
        .ok()
        .out,
    );
    assert_eq!((&answers[0]["image"], &answers[0]["top"][0]["name"]), (&"odd\u{fffd}.png".into(), &"blue".into()));
}

/// Nothing that looks like a picture is passed over in silence.
#[cfg(unix)]
#[test]
fn what_is_left_out_is_told() {
    let dir = tempfile::tempdir().unwrap();
    colours(dir.path());
    std::fs::write(dir.path().join("red/moving.gif"), b"GIF89a").unwrap();
    std::fs::write(dir.path().join("red/flat.WEBP"), b"RIFF").unwrap();
    paint(&dir.path().join("lost.png"), 40, 40, |_, _| RED);
    let ran = cqat(dir.path(), &["data", "info", "."]).ok();
    assert!(ran.err.contains("left out: ./red/flat.WEBP and 1 more: neither PNG nor JPEG"), "{}", ran.err);
    assert!(ran.err.contains("left out: ./lost.png: in no class folder"), "{}", ran.err);
    // A link to nothing, and a pipe, which is not waited for.
    std::os::unix::fs::symlink("/nowhere/a.png", dir.path().join("red/link.png")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(dir.path().join("red/pipe.jpg")).status().unwrap().success());
    let ran = cqat(dir.path(), &["data", "info", "."]).fails(3, "2 of 32 pictures are broken", "--skip-broken");
    for line in ["red/link.png: cannot be read (No such file", "red/pipe.jpg: is no file"] {
        assert!(ran.err.contains(line), "{}", ran.err);
    }
    cqat(dir.path(), &["data", "info", ".", "--skip-broken"]).ok();
    assert_eq!(load(dir.path(), |r| r.skip_broken = true).unwrap().train.len(), 24);
}

#[test]
fn folders_for_training_and_testing_are_taken_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    colours(&dir.path().join("train"));
    for (i, (name, colour)) in [("red", RED), ("green", GREEN)].into_iter().enumerate() {
        paint(&dir.path().join("val").join(name).join("a.png"), 40 + i as u32, 40, |_, _| colour);
    }
    let set = load(dir.path(), |_| {}).unwrap();
    assert_eq!((set.train.len(), &set.test.labels[..]), (30, &[1, 2][..]), "by the names of the training folders");
    assert!(near(set.test.image(1), RED));
    paint(&dir.path().join("val/yellow/a.png"), 40, 40, |_, _| RED);
    says(load(dir.path(), |_| {}).unwrap_err(), ErrorKind::Data, "has a class yellow, which", "same class folders");
}

#[test]
fn pictures_are_decoded_once() {
    let dir = tempfile::tempdir().unwrap();
    colours(dir.path());
    let first = load(dir.path(), |_| {}).unwrap();
    let cache = dir.path().join(".cqat-pictures-32.cache");
    let written = std::fs::read(&cache).unwrap();
    assert_eq!(load(dir.path(), |_| {}).unwrap().sha256, first.sha256);
    assert!(std::fs::read(&cache).unwrap() == written);
    // The cache is what is read: another picture in it, with the hashes right, would come out.
    let changed = |at: usize| {
        let mut bytes = written.clone();
        bytes[at] ^= 1;
        std::fs::write(&cache, bytes).unwrap();
    };
    for at in [3, 20, 200, written.len() - 1] {
        changed(at);
        assert_eq!(load(dir.path(), |_| {}).unwrap().sha256, first.sha256, "a cache damaged at byte {at}");
        assert!(std::fs::read(&cache).unwrap() == written, "it is made anew");
    }
    for cut in [0, 8, 39, 1000, written.len() - 1] {
        std::fs::write(&cache, &written[..cut]).unwrap();
        assert_eq!(load(dir.path(), |_| {}).unwrap().sha256, first.sha256, "a cache cut at byte {cut}");
    }
    paint(&dir.path().join("red/4.png"), 33, 50, |_, _| GREEN);
    assert_ne!(load(dir.path(), |_| {}).unwrap().sha256, first.sha256, "a picture that changed is seen");
}

#[test]
fn broken_pictures_are_listed_and_left_out_on_request() {
    let dir = tempfile::tempdir().unwrap();
    colours(dir.path());
    let whole = std::fs::read(dir.path().join("red/0.png")).unwrap();
    std::fs::write(dir.path().join("red/0.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(dir.path().join("blue/3.jpg"), b"\xff\xd8\xff and nothing more").unwrap();
    std::fs::write(dir.path().join("green/5.jpg"), b"GIF89a").unwrap();
    let refused = load(dir.path(), |_| {}).unwrap_err();
    for name in ["red/0.png", "blue/3.jpg", "green/5.jpg"] {
        assert!(refused.to_string().contains(name), "{refused}");
    }
    says(refused, ErrorKind::Data, "3 of 30 pictures are broken:", "--set data.skip_broken=true");
    // The second time they come out of the cache.
    assert!(load(dir.path(), |_| {}).unwrap_err().to_string().contains("green/5.jpg: is neither a PNG nor a JPEG"));
    let set = load(dir.path(), |r| r.skip_broken = true).unwrap();
    assert_eq!(set.train.len() + set.test.len(), 27);
}

/// Pictures of a class in `images`, those for validation in a list, those for testing without labels.
#[test]
fn tiny_imagenet_is_read_as_it_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let mut list = String::new();
    for (k, (name, colour)) in [("n01", RED), ("n02", GREEN)].into_iter().enumerate() {
        for i in 0..4 {
            paint(&dir.path().join(format!("train/{name}/images/{name}_{i}.jpg")), 64, 64, |_, _| colour);
            paint(&dir.path().join(format!("val/images/val_{}.jpg", 4 * k + i)), 64, 64, |_, _| colour);
            list += &format!("val_{}.jpg\t{name}\t0\t0\t62\t62\n", 4 * k + i);
        }
        std::fs::write(dir.path().join(format!("train/{name}/{name}_boxes.txt")), "0 0 62 62").unwrap();
    }
    paint(&dir.path().join("test/images/test_0.jpg"), 64, 64, |_, _| BLUE);
    std::fs::write(dir.path().join("val/val_annotations.txt"), &list).unwrap();
    let set = load(dir.path(), |r| r.size = 64).unwrap();
    assert_eq!((&set.class_names[..], set.train.len()), (&["n01", "n02"].map(String::from)[..], 8));
    assert_eq!(set.test.labels, [0, 0, 0, 0, 1, 1, 1, 1]);
    assert!(near(set.test.image(7), GREEN) && near(set.train.image(0), RED));
    std::fs::write(dir.path().join("val/val_annotations.txt"), format!("{list}val_9.jpg\tn01\n")).unwrap();
    says(load(dir.path(), |_| {}).unwrap_err(), ErrorKind::Data, "val_annotations.txt:9: there is no", "unpack");
    for line in ["../../train/n01/images/n01_0.jpg\tn01", "val_0.jpg\tn01/n02", "val_0.jpg\t"] {
        std::fs::write(dir.path().join("val/val_annotations.txt"), format!("{list}{line}\n")).unwrap();
        let error = load(dir.path(), |_| {}).unwrap_err();
        says(error, ErrorKind::Data, "val_annotations.txt:9: expected plain names, without folders", "unpack");
    }
}

/// What came out of an archive may lie beside it.
#[test]
fn class_folders_go_before_archives() {
    let dir = tempfile::tempdir().unwrap();
    colours(dir.path());
    let alone = load(dir.path(), |_| {}).unwrap();
    for name in ["pictures.tar.gz", "more.tar.gz"] {
        std::fs::write(dir.path().join(name), b"\x1f\x8bnothing of use").unwrap();
        assert_eq!(load(dir.path(), |_| {}).unwrap().sha256, alone.sha256, "beside {name}");
    }
}

#[test]
fn there_may_be_many_classes() {
    let dir = tempfile::tempdir().unwrap();
    paint(&dir.path().join("0000/0.png"), 8, 8, |_, _| RED);
    for class in 0..1001 {
        let folder = dir.path().join(format!("{class:04}"));
        std::fs::create_dir_all(&folder).unwrap();
        for i in 1..3 {
            std::fs::copy(dir.path().join("0000/0.png"), folder.join(format!("{i}.png"))).unwrap();
        }
    }
    let set = load(dir.path(), |r| r.size = 16).unwrap();
    assert_eq!((set.classes, set.train.len(), set.test.len()), (1001, 1002, 1001));
}

/// A failing disk says nothing about a picture. Reading a process's memory from its start fails as such a disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_picture_that_could_not_be_read_is_not_remembered_as_broken() {
    let dir = tempfile::tempdir().unwrap();
    colours(dir.path());
    std::fs::remove_file(dir.path().join("red/0.png")).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", dir.path().join("red/0.png")).unwrap();
    let refused = load(dir.path(), |_| {}).unwrap_err();
    says(refused, ErrorKind::Data, "red/0.png: cannot be read (Input/output error", "data.skip_broken");
    assert_eq!(load(dir.path(), |r| r.skip_broken = true).unwrap().train.len(), 23);
    assert!(!dir.path().join(".cqat-pictures-32.cache").exists());
}

#[test]
fn what_is_no_set_of_pictures_is_told() {
    let dir = tempfile::tempdir().unwrap();
    paint(&dir.path().join("a.png"), 40, 40, |_, _| RED);
    says(load(dir.path(), |_| {}).unwrap_err(), ErrorKind::Data, "holds pictures and no class folders", "each class");
    paint(&dir.path().join("alone/a.png"), 40, 40, |_, _| RED);
    let alone = load(dir.path(), |_| {}).unwrap_err();
    says(alone, ErrorKind::Data, "holds pictures in one folder alone, alone; expected two", "a folder of its own");
    paint(&dir.path().join("other/a.png"), 40, 40, |_, _| RED);
    says(load(dir.path(), |_| {}).unwrap_err(), ErrorKind::Data, "class alone has 1 picture", "one to train on");
    for size in [0, 8, 36, 264, usize::MAX] {
        let error = load(dir.path(), |r| r.size = size).unwrap_err();
        says(error, ErrorKind::Config, "asked for, expected a multiple of 8 from 16 to 256 pixels", "CIFAR's");
    }
    let above = tempfile::tempdir().unwrap();
    colours(&above.path().join("mine"));
    let error = load(above.path(), |_| {}).unwrap_err();
    says(error, ErrorKind::Data, "holds no class folders, but ", "mine");
    let error = load(Path::new("embedded"), |r| r.size = 64).unwrap_err();
    says(error, ErrorKind::Config, "pictures of 32 x 32 pixels, but data.size is 64", "data.size=32");
}

/// A place with pictures, and a run that was trained on them.
fn trained() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    colours(&place.path().join("colours"));
    let config = "data: {dir: colours, size: 16, augment: {crop_padding: 2}}\nnetwork: {depth: 8, width: 8}\n\
                  train: {batch: 8, float_epochs: 3, quant_epochs: 2}\n";
    std::fs::write(place.path().join("own.yaml"), config).unwrap();
    cqat(place.path(), &["train", "own.yaml", "--out", "run"]).ok();
    place
}

#[test]
fn a_network_learns_colours_and_tells_them() {
    let place = trained();
    let json = parsed(&cqat(place.path(), &["eval", "run", "--json"]).ok().out);
    assert_eq!((&json["data"], &json["samples"]), (&"colours".into(), &6.into()));
    paint(&place.path().join("new/sea.jpg"), 200, 90, |_, _| Rgb([30, 40, 215]));
    paint(&place.path().join("new/deep/rose.png"), 21, 22, |_, _| Rgb([240, 20, 25]));
    for kind in [&[][..], &["--kind", "folded"], &["--kind", "float"]] {
        let answers = parsed(&cqat(place.path(), &[&["infer", "run", "new", "--json"], kind].concat()).ok().out);
        let seen: Vec<(&str, &str)> = answers
            .as_array()
            .unwrap()
            .iter()
            .map(|a| (a["image"].as_str().unwrap(), a["top"][0]["name"].as_str().unwrap()))
            .collect();
        assert_eq!(seen, [("new/deep/rose.png", "red"), ("new/sea.jpg", "blue")], "{kind:?}");
        let sum: f64 = answers[0]["top"].as_array().unwrap().iter().map(|t| t["probability"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "three classes share it: {sum}");
    }
    let text = cqat(place.path(), &["infer", "run/float.safetensors", "new/sea.jpg", "--top", "1"]).ok().out;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0] == "new/sea.jpg" && lines[1].ends_with(" %  blue") && lines.len() == 2, "{text}");
    // What can be read is answered, what cannot is named.
    std::fs::write(place.path().join("new/broken.png"), b"hello").unwrap();
    let ran = cqat(place.path(), &["infer", "run", "new"]);
    assert!(ran.code == 3 && ran.err.contains("1 of 3 pictures could not be read"), "{}", ran.err);
    assert!(ran.err.contains("broken.png: is neither a PNG nor a JPEG") && ran.out.contains("sea.jpg"), "{}", ran.err);
    cqat(place.path(), &["infer", "run", "nowhere.png"]).fails(3, "nowhere.png: cannot be read", "check the path");
    std::fs::create_dir(place.path().join("nothing")).unwrap();
    cqat(place.path(), &["infer", "run", "nothing"]).fails(3, "nothing holds no PNG or JPEG picture", "check the path");
    assert_eq!(cqat(place.path(), &["infer", "run", "new/sea.jpg", "--top", "0"]).code, 2);
    std::fs::create_dir(place.path().join("colours/void")).unwrap();
    let ran = cqat(place.path(), &["data", "info", "colours"]).ok();
    assert!(ran.err.contains("void holds no picture, so it is no class") && !ran.out.contains("void"), "{}", ran.err);
}
