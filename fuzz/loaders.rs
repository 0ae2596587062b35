//! What the fuzz targets do with bytes: each loader takes them as a file from anywhere, and may refuse them, but not panic.
//! The fuzzer's own limit catches one that takes too much memory. `tests/fuzz_seeds.rs` does the same with the seeds, without
//! that limit.

#![allow(dead_code, reason = "every target uses one of them")]

use std::path::PathBuf;

use cqat::config::Config;
use cqat::data::{self, Request};
use cqat::evaluate::Loaded;
use cqat::integer::{IntegerNet, Multiplier};
use cqat::model::Model;
use cqat::{checkpoint, pictures, setup};

/// A configuration; where it is one, what is made of it.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = Config::from_yaml("{}", "fuzz", &[text.to_string()]);
    let Ok(config) = Config::from_yaml(text, "fuzz", &[]) else { return };
    let again = Config::from_yaml(&config.to_yaml().unwrap(), "fuzz", &[]).unwrap();
    // NaN is not equal to itself, and is refused below.
    assert!(config.validate().is_err() || config == again, "a configuration changes when it is written");
    let _ = setup::check(&config);
}

/// A checkpoint, as a start, as a run, and as integers.
pub fn checkpoint(bytes: &[u8]) {
    let (_folder, path) = file("fuzz.safetensors", bytes);
    let _ = checkpoint::start(&path);
    let Ok(loaded) = Loaded::read(&path) else { return };
    let width = loaded.config.network.width;
    let Ok((net, Some(spec))) = setup::network(&loaded.config, 10) else { return };
    if width <= 16 {
        let _ = IntegerNet::fold(
            &net,
            &spec,
            &loaded.checkpoint.tensors,
            &loaded.checkpoint.meta.normalisation,
            Multiplier::Bits32,
        );
    }
}

/// A model, and what runs it.
pub fn model(bytes: &[u8]) {
    let Ok(model) = Model::of_bytes(bytes) else { return };
    assert!(Model::of_bytes(&model.to_bytes().unwrap()).unwrap() == model, "a model changes when it is written");
    if model.net.size <= 32 && model.net.layers.iter().all(|layer| layer.shape.c <= 64) {
        model.net.run(&vec![200; model.net.picture_bytes()]).unwrap();
    }
}

/// A training file of CIFAR, binary or pickled, beside a good test file.
pub fn cifar(bytes: &[u8]) {
    let (folder, _path) = file("train", bytes);
    let record = [&[3][..], &vec![7; data::PICTURE_BYTES]].concat();
    std::fs::write(folder.path().join("test_batch.bin"), record).unwrap();
    let _ = data::load_as(&Request::of(folder.path().to_str().unwrap()));
}

/// An archive, packed or not.
pub fn archive(bytes: &[u8]) {
    let (_folder, path) = file("cifar.tar.gz", bytes);
    let _ = data::load_as(&Request::of(path.to_str().unwrap()));
}

/// A picture.
pub fn picture(bytes: &[u8]) {
    let (_folder, path) = file("picture.png", bytes);
    if let Ok(planes) = pictures::read(&path, 32) {
        assert_eq!(planes.len(), data::PICTURE_BYTES);
    }
}

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}
