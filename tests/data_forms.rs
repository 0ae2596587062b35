//! The other forms of CIFAR: the Python version, and archives of both versions. Each gives the pictures of the binary folder.

mod common;
#[path = "common/pickle.rs"]
mod pickle;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use cqat::ErrorKind;
use cqat::data::{DataSet, PICTURE_BYTES, load};
use flate2::Compression;
use flate2::write::GzEncoder;
use pickle::{Batch, names};
use tempfile::TempDir;

/// Files by name.
type Files = Vec<(String, Vec<u8>)>;

/// `count` pictures from number `first` on, each with noise of its own.
fn pictures(first: usize, count: usize) -> Vec<u8> {
    (0..count * PICTURE_BYTES).map(|i| (((i + first * 7) * 2_654_435_761) >> 11) as u8).collect()
}

fn numbered(count: usize, word: &str) -> Vec<String> {
    (0..count).map(|i| format!("{word}_{i}")).collect()
}

/// CIFAR-100 in both versions: 210 training and 50 test pictures.
fn cifar100() -> [Files; 2] {
    let (mut binary, mut python) = (Files::new(), Files::new());
    for (name, first, count) in [("train", 0, 210), ("test", 210, 50)] {
        let bytes = pictures(first, count);
        let labels = |classes: usize| (first..first + count).map(|i| (i % classes) as i64).collect::<Vec<_>>();
        let (fine, coarse) = (labels(100), labels(20));
        let records = bytes.chunks_exact(PICTURE_BYTES).zip(fine.iter().zip(&coarse));
        let records = records.flat_map(|(p, (f, c))| [*c as u8, *f as u8].into_iter().chain(p.iter().copied()));
        binary.push((format!("{name}.bin"), records.collect()));
        let labels = [("fine_labels", fine), ("coarse_labels", coarse)];
        python.push((name.into(), Batch { labels: &labels, pictures: &bytes }.pickled()));
    }
    binary.push(("fine_label_names.txt".into(), numbered(100, "fine").join("\n").into_bytes()));
    let lists = [("fine_label_names", numbered(100, "fine")), ("coarse_label_names", numbered(20, "coarse"))];
    python.push(("meta".into(), names(&lists)));
    [binary, python]
}

/// CIFAR-10 in both versions: five batches of 20 pictures and one of 20 for testing.
fn cifar10() -> [Files; 2] {
    let (mut binary, mut python) = (Files::new(), Files::new());
    for i in 0..6 {
        let name = if i < 5 { format!("data_batch_{}", i + 1) } else { "test_batch".into() };
        let bytes = pictures(20 * i, 20);
        let labels: Vec<i64> = (0..20).map(|k| (k + i as i64) % 10).collect();
        let records = bytes.chunks_exact(PICTURE_BYTES).zip(&labels);
        let records = records.flat_map(|(p, l)| std::iter::once(*l as u8).chain(p.iter().copied()));
        binary.push((format!("{name}.bin"), records.collect()));
        python.push((name, Batch { labels: &[("labels", labels)], pictures: &bytes }.pickled()));
    }
    binary.push(("batches.meta.txt".into(), (numbered(10, "thing").join("\n") + "\n\n").into_bytes()));
    python.push(("batches.meta".into(), names(&[("label_names", numbered(10, "thing"))])));
    [binary, python]
}

fn folder(files: &Files) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(dir.path().join(name), bytes).unwrap());
    dir
}

/// A tar archive of `files` in a folder `top`.
fn tar(top: &str, files: &Files) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("{top}/{name}"), &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn load_path(path: &Path) -> cqat::Result<DataSet> {
    load(path.to_str().unwrap(), 0, 0)
}

#[track_caller]
fn refused(path: &Path, message: &str, hint: &str) {
    let error = load_path(path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
    let said = [error.to_string()].into_iter().chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join("; ");
    assert!(said.contains(message), "message: {said}\nexpected: {message}");
    let found = error.hint_text().expect("every error has a hint");
    assert!(found.contains(hint), "hint: {found}\nexpected: {hint}");
}

/// An archive on disk.
fn archive(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn every_form_gives_the_same_set() {
    for (title, [binary, python], counts) in [("cifar100", cifar100(), (210, 50)), ("cifar10", cifar10(), (100, 20))] {
        let expected = load_path(folder(&binary).path()).unwrap();
        assert_eq!((expected.name.as_str(), expected.train.len(), expected.test.len()), (title, counts.0, counts.1));
        assert!(!expected.class_names[3].starts_with("class"), "{:?}", expected.class_names);
        let same = |path: &Path, what: &str| {
            let set = load_path(path).unwrap_or_else(|e| panic!("{title}, {what}: {e}"));
            assert_eq!((&set.name, &set.sha256), (&expected.name, &expected.sha256), "{title}, {what}");
            assert_eq!((&set.train, &set.test), (&expected.train, &expected.test), "{title}, {what}");
            assert_eq!(set.class_names, expected.class_names, "{title}, {what}");
        };
        same(folder(&python).path(), "Python version");
        for (version, files) in [("binary", &binary), ("Python", &python)] {
            let packed = tar("cifar-some-folder", files);
            // The name says nothing.
            for (name, bytes) in [("a.tar.gz", gzip(&packed)), ("no-extension", packed)] {
                let (dir, path) = archive(name, &bytes);
                same(&path, &format!("{version} archive {name}"));
                same(dir.path(), &format!("the folder of the {version} archive {name}"));
            }
        }
    }
}

/// As it lies where torchvision has put it: the archive and the folder that came out of it.
#[test]
fn an_unpacked_folder_goes_before_the_archive_beside_it() {
    let [binary, python] = cifar100();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("cifar-100-python")).unwrap();
    for (name, bytes) in &python {
        std::fs::write(dir.path().join("cifar-100-python").join(name), bytes).unwrap();
    }
    std::fs::write(dir.path().join("cifar-100-python.tar.gz"), b"\x1f\x8bnothing of use").unwrap();
    let expected = load_path(folder(&binary).path()).unwrap();
    assert_eq!(load_path(dir.path()).unwrap().sha256, expected.sha256);
    // Two archives and no folder: which one?
    std::fs::remove_dir_all(dir.path().join("cifar-100-python")).unwrap();
    std::fs::write(dir.path().join("cifar-10-binary.tar.gz"), gzip(&tar("x", &cifar10()[0]))).unwrap();
    refused(dir.path(), "2 archives in", "name one of them, for example");
}

#[test]
fn a_pickle_is_never_run() {
    let [_, mut python] = cifar100();
    // os.system('echo')
    let attack = b"\x80\x02cposix\nsystem\nU\x04echo\x85R.".to_vec();
    python[0].1 = attack;
    refused(folder(&python).path(), "train is a pickle, but not one of CIFAR's: it asks for posix.system", "unpack it");
    for (bytes, message) in [
        (&b"\x80\x04\x95."[..], "it has protocol 4, expected 2, at byte 0"),
        (b"\x80\x02i__main__\nX\n.", "operation 0x69 does not occur in CIFAR's files, at byte 2"),
        (b"\x80\x02]q\x01h\x01.", "memo 1 holds a container"),
        (b"\x80\x02h\x07.", "memo 7 is empty"),
        (b"\x80\x02.", "a value is missing from the stack"),
        (b"\x80\x02K", "1 bytes should follow, but only 0 are left"),
        (b"\x80\x02T\xff\xff\xff\xffabc", "4294967295 bytes should follow, but only 3 are left"),
        (b"\x80\x02((((((((.", "marks are nested more than 6 deep"),
        (b"\x80\x02)\x85\x85\x85\x85\x85\x85\x85\x85.", "values are nested more than 6 deep"),
        (b"\x80\x02}K\x01K\x02s.", "a key that is no string"),
        (b"\x80\x02}(U\x01au.", "a key without a value"),
        (b"\x80\x02K\x01K\x02a.", "items are added to something that is no list"),
        (b"\x80\x02cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R.", "an array whose elements are not bytes"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "a call that CIFAR's files do not make"),
    ] {
        python[0].1 = bytes.to_vec();
        refused(folder(&python).path(), message, "unpack it again");
    }
    // Many values out of few bytes.
    python[0].1 = [&b"\x80\x02"[..], &vec![b'N'; (2 << 20) + 1], b"."].concat();
    refused(folder(&python).path(), "it holds more than 2097152 values", "unpack it again");
    let puts = (0..=2 << 20).flat_map(|slot: u32| [&b"r"[..], &slot.to_le_bytes()].concat());
    python[0].1 = b"\x80\x02N".iter().copied().chain(puts).chain(*b".").collect();
    refused(folder(&python).path(), "it remembers more than 2097152 values", "unpack it again");
}

#[test]
fn a_damaged_python_file_is_named() {
    let batch = |fine: Vec<i64>, coarse: Vec<i64>| {
        let labels = [("fine_labels", fine), ("coarse_labels", coarse)];
        Batch { labels: &labels, pictures: &pictures(0, 3) }.pickled()
    };
    let [_, mut python] = cifar100();
    let mut says = |bytes: Vec<u8>, message: &str| {
        python[0].1 = bytes;
        refused(folder(&python).path(), message, "unpack it again");
    };
    says(
        batch(vec![0, 1, 100], vec![0; 3]),
        "has 100 in fine_labels for picture 2 (counted from 0), expected less than 100",
    );
    says(batch(vec![0, 1, 2], vec![0, -1, 0]), "has -1 in coarse_labels for picture 1");
    says(batch(vec![0, 1], vec![0; 3]), "holds 2 fine_labels for 3 pictures");
    let nothing = [("fine_labels", vec![]), ("coarse_labels", vec![])];
    says(Batch { labels: &nothing, pictures: &[] }.pickled(), "train holds no pictures");
    let whole = batch(vec![0, 1, 2], vec![0; 3]);
    // Wherever it is cut, it is refused, and by its name.
    for cut in (3..whole.len()).step_by(97).chain([whole.len() - 1]) {
        says(whole[..cut].to_vec(), "train is a pickle, but not one of CIFAR's");
    }
}

/// The oldest form of tar has no mark of its own.
#[test]
fn an_old_archive_is_read() {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in &cifar100()[0] {
        let mut header = tar::Header::new_old();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    let (_dir, path) = archive("old", &builder.into_inner().unwrap());
    assert_eq!(load_path(&path).unwrap().train.len(), 210);
}

#[test]
fn a_damaged_archive_is_refused() {
    let packed = tar("cifar-100-python", &cifar100()[1]);
    let whole = gzip(&packed);
    for cut in [20, 1000, whole.len() / 2, whole.len() - 9] {
        let (_dir, path) = archive("cifar.tar.gz", &whole[..cut]);
        refused(&path, "cifar.tar.gz cannot be read to its end", "download it again");
    }
    let (_dir, path) = archive("cifar.tar", &packed[..packed.len() / 2]);
    refused(&path, "cifar.tar cannot be read to its end", "download it again");
    let (_dir, path) = archive("other.tar.gz", &gzip(&tar("x", &vec![("readme".into(), b"hello".to_vec())])));
    refused(&path, "other.tar.gz holds no CIFAR file", "or use the built-in set");
}

/// A small archive that unpacks to much, and one whose header promises much.
#[test]
fn an_archive_takes_no_more_memory_than_it_justifies() {
    let header = |bytes: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_path("x/train.bin").unwrap();
        header.set_size(bytes);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let zeros = gzip(&vec![0; 1 << 20]);
    let bomb = [gzip(&header(2 << 30)), zeros.repeat(2 << 10)].concat();
    for (name, bytes, message, hint) in [
        ("bomb.tar.gz", bomb, "it unpacks to more than its size justifies", "unpack any other"),
        ("promise.tar", [header(7 << 30), vec![1; 1024]].concat(), "promise.tar cannot be read", "download it again"),
    ] {
        let (dir, path) = archive(name, &bytes);
        refused(&path, message, hint);
        if cfg!(target_os = "linux") {
            let ran = common::limited(1000, dir.path(), &["data", "info", name]);
            ran.fails(3, "cannot be read to its end", hint);
        }
    }
    let many: Files = (0..1001).map(|i| (format!("{i}"), Vec::new())).collect();
    let (_dir, path) = archive("many.tar", &tar("x", &many));
    refused(&path, "holds more than 1000 files", "unpack any other");
    let pictures: Files = (0..3).map(|i| (format!("cat/{i}.jpg"), b"\xff\xd8\xff\xe0 and so on".to_vec())).collect();
    let (_dir, path) = archive("pictures.tar", &tar("x", &pictures));
    refused(&path, "pictures.tar holds pictures, 3 of them", "unpack it");
}

/// Nothing is written, wherever an entry would like to go.
#[test]
fn paths_in_an_archive_lead_nowhere() {
    let mut builder = tar::Builder::new(Vec::new());
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("outside");
    for ((name, bytes), path) in
        cifar100()[0].iter().zip(["../../train.bin", target.to_str().unwrap(), "c\x1b[31m.txt"])
    {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, &bytes[..]).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let (dir, path) = archive("paths.tar", &builder.into_inner().unwrap());
    // The test file's name says so no more, but it is the smaller one.
    let set = load_path(&path).unwrap();
    assert_eq!((set.train.len(), set.test.len()), (210, 50));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(!target.exists());
}
