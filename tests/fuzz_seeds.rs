//! The fuzz targets on their seeds, so that both stay what they are meant to be. `fuzz/README.md` says how to fuzz.

#[path = "../fuzz/loaders.rs"]
mod loaders;

use std::path::Path;

/// Runs a target on each of its seeds.
fn seeds(target: &str, loader: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).collect();
    assert!(files.len() >= 2, "{target} has {} seeds", files.len());
    files.into_iter().for_each(|file| loader(&std::fs::read(file.unwrap().path()).unwrap()));
}

#[test]
fn every_loader_takes_its_seeds() {
    seeds("config", loaders::config);
    seeds("checkpoint", loaders::checkpoint);
    seeds("model", loaders::model);
    seeds("cifar", loaders::cifar);
    seeds("archive", loaders::archive);
    seeds("picture", loaders::picture);
}
