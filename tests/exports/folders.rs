//! The command: what it writes, and what it refuses.

use std::path::Path;

use super::common::{contents, cqat, parsed, workplace};

#[test]
fn a_folder_is_new_and_whole() {
    let place = workplace();
    let here = |arguments: &[&str]| cqat(place.path(), arguments);
    here(&["train", "tiny.yaml", "--out", "run", "--set", "train.float_epochs=1", "--set", "train.quant_epochs=1"])
        .ok();
    here(&["quantize", "run", "--out", "m"]).ok();
    assert_eq!(here(&["export", "m", "--format", "c", "--out", "c"]).ok().out, "c\n");
    let manifest = parsed(&std::fs::read_to_string(place.path().join("c/manifest.json")).unwrap());
    assert_eq!(manifest["pictures"].as_array().unwrap().len(), 4);
    assert_eq!(manifest["model"]["layers"][0]["name"], "stem");
    for (file, hash) in manifest["sha256"].as_object().unwrap() {
        assert_eq!(hash.as_str().unwrap(), sha256(&place.path().join("c").join(file)), "{file}");
    }
    image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 77]))
        .save(place.path().join("p.png"))
        .unwrap();
    here(&["export", "m", "--format", "c", "--out", "of-p", "--image", "p.png"]).ok();
    let logits = std::fs::read(place.path().join("of-p/vectors/logits.bin")).unwrap();
    assert_eq!(logits.len(), 4 * manifest["model"]["classifier"]["classes"].as_u64().unwrap() as usize);
    let before = contents(place.path());
    here(&["export", "m", "--format", "c", "--out", "c"]).fails(2, "c exists", "new folder");
    here(&["export", "m", "--format", "c", "--out", "x/y"]).fails(2, "there is no folder x", "make it");
    here(&["export", "m", "--format", "c", "--out", "x", "--image", "no.png"]).fails(3, "no.png", "");
    here(&["export", "tiny.yaml", "--format", "c", "--out", "x"]).fails(5, "not a whole safetensors file", "");
    here(&["export", "nothing", "--format", "c", "--out", "x"]).fails(5, "nothing: cannot be read", "");
    assert!(contents(place.path()) == before);
}

fn sha256(file: &Path) -> String {
    let (_, text) = super::run(Path::new("."), "sha256sum", &[file.to_str().unwrap()]);
    text.split(' ').next().unwrap().to_string()
}
