//! Data sets on disk and built in: what is found, how it is split and ordered, and what each damaged folder reports.

use std::fs;
use std::path::Path;

use cqat::data::{DataSet, PICTURE_BYTES, Request, Split, load, load_as};
use cqat::error::{Error, ErrorKind};
use tempfile::TempDir;

/// Bytes of a record: CIFAR-10 has one label byte, CIFAR-100 two.
const RECORD_10: usize = 1 + PICTURE_BYTES;
const RECORD_100: usize = 2 + PICTURE_BYTES;

/// `count` CIFAR-100 records; every picture is filled with its own number (plus `first`, modulo 251).
fn cifar100(count: usize, first: usize) -> Vec<u8> {
    (first..first + count)
        .flat_map(|i| [(i % 20) as u8, (i % 100) as u8].into_iter().chain([(i % 251) as u8; PICTURE_BYTES]))
        .collect()
}

/// `count` CIFAR-10 records, like [`cifar100`].
fn cifar10(count: usize, first: usize) -> Vec<u8> {
    (first..first + count).flat_map(|i| [(i % 10) as u8].into_iter().chain([(i % 251) as u8; PICTURE_BYTES])).collect()
}

fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

fn small_cifar100() -> Vec<(&'static str, Vec<u8>)> {
    vec![("train.bin", cifar100(200, 0)), ("test.bin", cifar100(50, 300))]
}

fn small_cifar10() -> Vec<(&'static str, Vec<u8>)> {
    let names = ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
    let mut files: Vec<_> = names.iter().enumerate().map(|(i, name)| (*name, cifar10(20, 20 * i))).collect();
    files.push(("test_batch.bin", cifar10(20, 100)));
    files
}

fn load_path(dir: &Path) -> cqat::error::Result<DataSet> {
    load(dir.to_str().unwrap(), 0, 0)
}

fn loaded(files: &[(&str, Vec<u8>)]) -> DataSet {
    load_path(folder(files).path()).unwrap()
}

/// Loading these files fails with a message and a hint that hold these words.
#[track_caller]
fn refused(files: &[(&str, Vec<u8>)], message: &str, hint: &str) {
    says(load_path(folder(files).path()).unwrap_err(), ErrorKind::Data, message, hint);
}

#[track_caller]
fn says(error: Error, kind: ErrorKind, message: &str, hint: &str) {
    assert_eq!(error.kind(), kind);
    assert!(error.to_string().contains(message), "message: {error}\nexpected: {message}");
    let found = error.hint_text().expect("every error has a hint");
    assert!(found.contains(hint), "hint: {found}\nexpected: {hint}");
}

#[test]
fn cifar100_is_found_by_content_whatever_the_names() {
    let set = loaded(&[
        ("a", cifar100(50, 300)),
        ("latest.dat", cifar100(200, 0)),
        ("notes.md", b"\n\nnot data".to_vec()),
        ("weights.bin", vec![200; 5000]),
    ]);
    assert_eq!((set.name.as_str(), set.classes, set.size()), ("cifar100", 100, 32));
    assert_eq!((set.train.len(), set.test.len()), (200, 50));
    assert_eq!(set.train.labels[123], 23, "the fine label, not the coarse one");
    assert_eq!(set.train.image(123), [123; PICTURE_BYTES]);
    assert_eq!(set.test.image(49), [(349 % 251) as u8; PICTURE_BYTES]);
    assert_eq!(set.class_names[99], "class 99");
    assert!(set.val.is_none());
}

#[test]
fn planes_keep_the_order_of_the_record() {
    let mut train = cifar100(3, 0);
    for (i, byte) in train[RECORD_100 + 2..2 * RECORD_100].iter_mut().enumerate() {
        *byte = (i / 1024 * 80 + i % 32) as u8;
    }
    let set = loaded(&[("train.bin", train), ("test.bin", cifar100(1, 0))]);
    let image = set.train.image(1);
    assert_eq!([image[0], image[31], image[32], image[1024], image[2048 + 5]], [0, 31, 0, 80, 165]);
}

#[test]
fn cifar10_takes_five_files_in_name_order() {
    let mut files = small_cifar10();
    files.reverse();
    let set = loaded(&files);
    assert_eq!((set.name.as_str(), set.classes), ("cifar10", 10));
    assert_eq!((set.train.len(), set.test.len()), (100, 20));
    assert!((0..100).all(|i| set.train.image(i)[7] == i as u8 && set.train.labels[i] == i as u16 % 10));
    assert_eq!(set.test.image(0)[0], 100);
}

#[test]
fn the_test_file_may_have_test_anywhere_in_its_name() {
    let mut files = small_cifar10();
    files[5].0 = "MyTest.dat";
    assert_eq!(loaded(&files).test.image(0)[0], 100);
    // Or be smaller than the others.
    files[5] = ("heldout", cifar10(10, 100));
    assert_eq!((loaded(&files).train.len(), loaded(&files).test.len()), (100, 10));
    files[5].1 = cifar10(20, 100);
    // A word that starts with it goes first.
    files[5].0 = "a-test.dat";
    files[0].0 = "latest.dat";
    assert_eq!(loaded(&files).test.image(0)[0], 100);
}

#[test]
fn cifar10_accepts_a_single_training_file() {
    let set = loaded(&[("train.bin", cifar10(200, 0)), ("test.bin", cifar10(50, 0))]);
    assert_eq!((set.name.as_str(), set.train.len(), set.test.len()), ("cifar10", 200, 50));
}

#[test]
fn the_parent_folder_will_do() {
    let set = loaded(&[
        ("cifar-100-binary/train.bin", cifar100(20, 0)),
        ("cifar-100-binary/test.bin", cifar100(10, 0)),
        ("photos/a.jpg", vec![255; 100]),
        ("readme", b"hello".to_vec()),
    ]);
    assert_eq!((set.name.as_str(), set.train.len()), ("cifar100", 20));
}

#[test]
fn a_size_that_fits_both_layouts_is_decided_by_the_labels() {
    let both = RECORD_10 * RECORD_100;
    let (ten, hundred) = (cifar10(RECORD_100, 0), cifar100(RECORD_10, 0));
    assert_eq!((ten.len(), hundred.len()), (both, both));
    let set = loaded(&[("train.bin", ten), ("test.bin", cifar10(5, 0))]);
    assert_eq!((set.name.as_str(), set.train.len()), ("cifar10", RECORD_100));
    let set = loaded(&[("train.bin", hundred), ("test.bin", cifar100(5, 0))]);
    assert_eq!((set.name.as_str(), set.train.len()), ("cifar100", RECORD_10));
    refused(&[("train.bin", vec![0; both])], "as CIFAR-10 and as CIFAR-100", "probably blank");
}

#[test]
fn equal_cifar100_files_are_told_apart_by_name() {
    let set = loaded(&[("a_test.bin", cifar100(20, 100)), ("b.bin", cifar100(20, 0))]);
    assert_eq!((set.train.image(0)[0], set.test.image(0)[0]), (0, 100));
    refused(&[("a.bin", cifar100(20, 0)), ("b.bin", cifar100(20, 0))], "expected two sizes", "`test` in its name");
}

#[test]
fn class_names_come_from_the_file_with_the_right_count() {
    let lines = |n: usize, word: &str| (0..n).map(|i| format!("{word}_{i}\n")).collect::<String>().into_bytes();
    let mut files = small_cifar100();
    files.push(("coarse_label_names.txt", lines(20, "coarse")));
    files.push(("an_essay.txt", lines(100, "line")));
    files.push(("fine_label_names.txt", lines(100, "fine")));
    assert_eq!(loaded(&files).class_names[42], "fine_42");

    let mut files = small_cifar10();
    files.push((
        "batches.meta.txt",
        b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n".to_vec(),
    ));
    assert_eq!(
        loaded(&files).class_names,
        "airplane automobile bird cat deer dog frog horse ship truck".split(' ').collect::<Vec<_>>()
    );

    files.pop();
    files.push(("batches.meta.txt", lines(9, "short")));
    assert_eq!(loaded(&files).class_names[9], "class 9");
}

#[test]
fn mean_and_deviation_are_those_of_the_whole_training_file() {
    // Red is half 0 and half 255, green is 51 throughout but for one picture in four at 255, blue is constant.
    let record = |i: usize| {
        let plane = |value: u8| std::iter::repeat_n(value, 1024);
        let red = (0..1024).map(|p| if p % 2 == 0 { 0 } else { 255 });
        [0, i as u8].into_iter().chain(red).chain(plane(if i.is_multiple_of(4) { 255 } else { 51 })).chain(plane(102))
    };
    let files = [("train.bin", (0..8).flat_map(record).collect()), ("test.bin", cifar100(2, 0))];
    let dir = folder(&files);
    for validation in [0, 3] {
        let set = load(dir.path().to_str().unwrap(), validation, 9).unwrap();
        assert_eq!(set.mean, [0.5, 0.4, 0.4]);
        let expected = [0.5, 0.8 * 0.1875f32.sqrt(), 1.0];
        assert!(set.std.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-7), "{:?}", set.std);
    }
}

#[test]
fn the_hash_follows_the_content_and_not_the_split() {
    let dir = folder(&small_cifar100());
    let path = dir.path().to_str().unwrap();
    let first = load(path, 0, 0).unwrap().sha256;
    assert_eq!((first.len(), &first), (64, &load(path, 50, 7).unwrap().sha256));
    let mut files = small_cifar100();
    files[1].1[RECORD_100 + 1] = 99; // a fine label of the test file
    assert_ne!(first, loaded(&files).sha256);
}

#[test]
fn the_validation_split_is_a_function_of_the_seed() {
    let dir = folder(&small_cifar100());
    let path = dir.path().to_str().unwrap();
    let firsts = |split: &Split| (0..split.len()).map(|i| split.image(i)[0]).collect::<Vec<_>>();
    let set = load(path, 60, 3).unwrap();
    let (val, train) = (firsts(set.val.as_ref().unwrap()), firsts(&set.train));
    assert_eq!((val.len(), train.len(), set.test.len()), (60, 140, 50));
    assert!(val.is_sorted() && train.is_sorted(), "both keep the order of the file");
    let mut all = [&val[..], &train].concat();
    all.sort();
    assert_eq!(all, (0..200).collect::<Vec<u8>>());
    assert!(set.train.labels.iter().zip(&train).all(|(&l, &p)| l == u16::from(p) % 100), "labels move with pictures");

    assert_eq!(val, firsts(&load(path, 60, 3).unwrap().val.unwrap()));
    assert_ne!(val, firsts(&load(path, 60, 4).unwrap().val.unwrap()));
    assert_eq!(firsts(&load(path, 5, 3).unwrap().val.unwrap()), [22, 52, 108, 136, 149], "stable for ever");
    assert_eq!(load(path, 199, 3).unwrap().train.len(), 1);
    says(
        load(path, 200, 3).unwrap_err(),
        ErrorKind::Config,
        "200 validation pictures asked for, expected fewer than the 200",
        "at most 199",
    );
}

#[test]
fn a_subset_is_the_same_for_every_seed() {
    let dir = folder(&small_cifar100());
    let load = |subset: usize, validation: usize, seed: u64| {
        let dir = dir.path().to_str().unwrap();
        load_as(&Request { subset: Some(subset), validation, seed, ..Request::of(dir) })
    };
    let firsts = |split: &Split| (0..split.len()).map(|i| split.image(i)[0]).collect::<Vec<_>>();
    let set = load(100, 0, 1).unwrap();
    let whole = load(200, 0, 1).unwrap();
    let train = firsts(&set.train);
    assert_eq!((train.len(), set.test.len(), set.classes), (100, 50, 100));
    assert!(train.is_sorted() && set.val.is_none(), "the order of the file");
    assert!((0..100).all(|class| set.train.labels.contains(&class)), "one of each class");
    assert!(set.train.labels.iter().zip(&train).all(|(&l, &p)| l == u16::from(p) % 100), "labels move with pictures");
    assert_eq!(train[..8], [2, 3, 6, 9, 10, 13, 14, 17], "stable for ever");
    // The data set is the same, and so is its normalisation.
    assert_eq!((&set.sha256, set.mean, set.std), (&whole.sha256, whole.mean, whole.std));
    assert_eq!((train.clone(), whole.train.len()), (firsts(&load(100, 0, 2).unwrap().train), 200));
    // It is taken from what validation leaves; pictures that are in neither are left out.
    let held = load(100, 60, 3).unwrap();
    let (val, rest) = (firsts(held.val.as_ref().unwrap()), firsts(&held.train));
    assert_eq!((val.len(), rest.len()), (60, 100));
    assert!(val.iter().all(|picture| !rest.contains(picture)));
    let message = "data.subset is 141, expected at most the 140 training pictures that validation leaves";
    says(load(141, 60, 3).unwrap_err(), ErrorKind::Config, message, "remove the key");
    says(load(201, 0, 3).unwrap_err(), ErrorKind::Config, "data.subset is 201, expected at most the 200", "remove");
}

#[test]
fn a_file_cut_short_is_named() {
    let mut files = small_cifar100();
    files[0].1.truncate(150 * RECORD_100 + 7);
    refused(
        &files,
        "train.bin is cut short: its 461107 bytes are 150 CIFAR-100 records of 3074 bytes and 7 bytes more",
        "download",
    );
    // Cut to a size that fits the other layout.
    files[0].1.truncate(150 * RECORD_10);
    refused(&files, "CIFAR-100 records of 3074 bytes and 2924 bytes more", "download");
    // Cut within the first record.
    files[0].1.truncate(1000);
    refused(&files, "the training file of CIFAR-100 is missing: ", "download the data set again");
    refused(&files, "train.bin (1000 bytes) is not made of such records", "download");

    let mut files = small_cifar10();
    files[2].1.pop();
    refused(
        &files,
        "data_batch_3.bin is cut short: its 61459 bytes are 19 CIFAR-10 records of 3073 bytes and 3072",
        "unpack",
    );
}

#[test]
fn a_wrong_label_is_named_by_record_and_byte() {
    let mut files = small_cifar100();
    files[0].1[17 * RECORD_100 + 1] = 100;
    refused(
        &files,
        "record 17 (counted from 0) has fine label 100 at byte 52259 of the file, expected less than 100",
        "damaged",
    );
    let mut files = small_cifar100();
    files[1].1[49 * RECORD_100] = 20;
    refused(
        &files,
        "record 49 (counted from 0) has coarse label 20 at byte 150626 of the file, expected less than 20",
        "damaged",
    );
    let mut files = small_cifar10();
    files[5].1[3 * RECORD_10] = 10;
    refused(
        &files,
        "test_batch.bin: record 3 (counted from 0) has label 10 at byte 9219 of the file, expected less than 10",
        "damaged",
    );
}

#[test]
fn a_damaged_file_is_an_error_even_where_the_rest_would_do() {
    let mut files = small_cifar100();
    files.push(("train_more.bin", cifar100(5, 0)));
    files[0].1.pop();
    refused(&files, "train.bin is cut short", "move it out of the folder");
}

#[test]
fn a_missing_file_is_named() {
    let mut files = small_cifar100();
    let test = files.pop().unwrap();
    refused(&files, "the test file of CIFAR-100 is missing", "put the test file of CIFAR-100");
    refused(&[test], "the training file of CIFAR-100 is missing", "put the training file");
    refused(&[("train.bin", cifar10(5, 0))], "the test file of CIFAR-10 is missing", "put the test file");
    refused(&small_cifar10()[5..], "the training file of CIFAR-10 is missing", "put the training file");
    refused(&small_cifar10()[..5], "`test` in its name, found none", "one data set alone");
    refused(&small_cifar10()[1..], "expected five CIFAR-10 training files", "one data set alone");
}

#[test]
fn ambiguous_files_are_listed() {
    let mut files = small_cifar10();
    files[5].0 = "data_batch_6.bin";
    refused(
        &files,
        "expected one CIFAR-10 file with `test` in its name, found none; found: data_batch_1.bin (20 pictures)",
        "one data set",
    );
    files[4].0 = "test_1.bin";
    files[5].0 = "test_2.bin";
    refused(&files, "found several", "one data set alone");
    let mut files = small_cifar10();
    files[0].1.truncate(RECORD_10);
    refused(&files, "expected the training files of CIFAR-10 to have one size", "one data set alone");
    let mut files = small_cifar100();
    files.push(("extra.bin", cifar100(30, 0)));
    refused(&files, "found: extra.bin (30 pictures), test.bin (50 pictures)", "one data set alone");
    let swapped = [("train.bin", cifar100(50, 0)), ("test.bin", cifar100(200, 0))];
    refused(&swapped, "expected the file named test to be the smaller one", "one data set alone");
    refused(&[small_cifar100(), small_cifar10()].concat(), "files of CIFAR-10 and of CIFAR-100", "a folder of its own");
    let two = [("a/x", cifar100(2, 0)), ("b/x", cifar10(2, 0))];
    refused(&two, "2 sub-folders of", "name one of them");
}

#[test]
fn a_folder_without_data_is_told_apart_from_an_empty_and_a_missing_one() {
    refused(
        &[],
        "is empty; expected CIFAR-100 or CIFAR-10, whose binary files are made of records of 3074 or 3073 bytes",
        "or use the built-in set: embedded",
    );
    refused(&[("a.txt", b"hello".to_vec())], "holds no CIFAR file", "in the binary or the Python version");
    refused(
        &[("train.bin", Vec::new())],
        "train.bin (0 bytes) is not made of such records",
        "unpacked or as the published",
    );
    let dir = folder(&small_cifar100());
    let missing = load_path(&dir.path().join("nowhere")).unwrap_err();
    says(missing, ErrorKind::Data, "nowhere does not exist", "check the path");
    let file = load_path(&dir.path().join("train.bin")).unwrap_err();
    says(file, ErrorKind::Data, "train.bin is a file, expected a folder or an archive", "name the folder");
    says(load("", 0, 0).unwrap_err(), ErrorKind::Data, "does not exist", "check the path");
}

#[test]
fn a_zip_archive_is_pointed_out() {
    refused(
        &[("cifar.zip", b"PK\x03\x04".to_vec())],
        "holds no CIFAR file",
        "is a zip archive, which is not read: unpack it",
    );
    let mut files = small_cifar100();
    files.pop();
    files.push(("rest.zip", b"PK\x03\x04".to_vec()));
    refused(&files, "the test file of CIFAR-100 is missing", "if it is in rest.zip, name that, or unpack it");
    let dir = folder(&[("cifar.tar.xz", b"\xfd7zXZ\0".to_vec()), ("cifar.tbz", b"BZh9".to_vec())]);
    for (name, kind) in [("cifar.tar.xz", "an xz"), ("cifar.tbz", "a bzip2")] {
        let message = format!("{name} is {kind} archive, which is not read");
        says(load_path(&dir.path().join(name)).unwrap_err(), ErrorKind::Data, &message, "unpack it");
    }
    #[cfg(unix)]
    says(load("/dev/null", 0, 0).unwrap_err(), ErrorKind::Data, "is neither a folder nor a file", "name the folder");
}

#[test]
fn a_crowded_folder_is_refused() {
    let names: Vec<String> = (0..1001).map(|i| format!("{i}")).collect();
    let files: Vec<(&str, Vec<u8>)> = names.iter().map(|n| (n.as_str(), Vec::new())).collect();
    refused(&files, "holds more than 1000 files", "a folder of their own");
    let names: Vec<String> = (0..65).map(|i| format!("{i}/x")).collect();
    let files: Vec<(&str, Vec<u8>)> = names.iter().map(|n| (n.as_str(), Vec::new())).collect();
    refused(&files, "holds 65 sub-folders", "name the folder that holds the files");
}

#[test]
fn the_built_in_set_is_balanced_and_padded() {
    let set = load("embedded", 100, 1).unwrap();
    assert_eq!((set.name.as_str(), set.classes, set.size()), ("fashion-mnist-mini", 10, 32));
    assert_eq!(set.class_names[9], "Ankle boot");
    assert_eq!((set.train.len(), set.val.as_ref().unwrap().len(), set.test.len()), (1100, 100, 800));
    let set = load("embedded", 0, 1).unwrap();
    for (split, expected) in [(&set.train, 120), (&set.test, 80)] {
        let count = |class| split.labels.iter().filter(|&&l| l == class).count();
        assert_eq!((0..10).map(count).collect::<Vec<_>>(), [expected; 10]);
        for i in 0..split.len() {
            let image = split.image(i);
            assert!(image[..1024] == image[1024..2048] && image[..1024] == image[2048..]);
            let border = |p: &usize| !(2..30).contains(&(p / 32)) || !(2..30).contains(&(p % 32));
            assert!((0..1024).filter(border).all(|p| image[p] == 0));
            assert!(image.iter().any(|&v| v > 60), "picture {i} is blank");
        }
    }
    // The first picture of the published training file: an ankle boot.
    assert_eq!((set.train.labels[0], set.train.image(0)[(3 + 2) * 32 + 12 + 2]), (9, 1));
    assert!(set.mean.iter().all(|m| *m == set.mean[0]) && (0.2..0.25).contains(&set.mean[0]), "{:?}", set.mean);
    assert_eq!(set.sha256, "b7a9c6bce49a5ae60c209fd37c3fe1874b2e81700d734d87b96769e6bca9b381");
}
