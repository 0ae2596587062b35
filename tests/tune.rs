//! `cqat tune`: variants that differ in speed alone, and the file that remembers which is the fastest.

mod common;

use std::collections::BTreeSet;

use common::{cqat, gpu, on_device, parsed, workplace};
use cqat::kernels::Format;
use cqat::kernels::activation::ActParams;
use cqat::kernels::conv::{ConvParams, Geometry};
use cqat::kernels::select::KernelFamily;
use cqat::net::Shape;
use cqat::quant::{Quant, mask};
use cqat::tune::{Product, race};

/// The default itself is compared with the CPU's result in `tests/kernels.rs`.
#[test]
fn every_variant_gives_the_bits_of_the_default() {
    let gpu = gpu(false);
    let shape = |side, c| Shape { h: side, w: side, c };
    let quant = Quant { base_hi: 255, hi: 15, mask: mask::INT, enabled: 1, ..Quant::OFF };
    // Where the device has matrix units, they take part.
    for (from, to, stride) in [(shape(8, 64), shape(8, 128), 1), (shape(7, 16), shape(4, 24), 2)] {
        let g = Geometry { batch: 3, from, to, kernel: 3, stride };
        for family in [KernelFamily::of(&gpu.caps), KernelFamily::Tiled] {
            let convs = [g.forward(Format::F32), g.data_gradient(true)].map(Product::Conv);
            let normed = [g.forward(Format::U8)].map(Product::ConvNorm);
            let act = ActParams { shortcut: 1, shortcut_format: Format::U8 as u32, quant, ..ActParams::default() };
            let back = [ConvParams { act, ..g.data_gradient(true) }].map(Product::ConvAct);
            let wgrads = [g.weight_gradient(Format::U8)].map(Product::Wgrad);
            for product in convs.into_iter().chain(normed).chain(back).chain(wgrads) {
                let race = race(&gpu, family, &product, g.flops()).unwrap();
                assert!(race.trials.len() > 1 || from.c < 32, "{race:?}");
                let different: BTreeSet<&str> = race.trials.iter().map(|t| t.variant.as_str()).collect();
                assert_eq!(different.len(), race.trials.len(), "{race:?}");
                assert!(race.trials.iter().all(|t| t.equal && t.ms > 0.0 && t.gflops > 0.0), "{race:?}");
            }
        }
    }
}

const TINY: [&str; 6] = ["--set", "network.depth=8", "--set", "network.width=8", "--set", "train.batch=8"];

#[test]
fn what_was_found_is_remembered_used_and_forgotten() {
    let place = workplace();
    let found = parsed(&cqat(place.path(), &[&["tune", "cqat", "--json", "--quiet"], &TINY[..]].concat()).ok().out);
    let found = found.as_array().unwrap();
    assert!(found.iter().any(|race| race["shape"].as_str().unwrap().starts_with("wgrad ")));
    let file = place.path().join("cache/tuned.json");
    let mut known = parsed(&std::fs::read_to_string(&file).unwrap());
    let (device, choices) = known.as_object_mut().unwrap().iter_mut().next().unwrap();
    assert!(device.contains("wgpu 30") && device.contains("shaders "), "{device}");
    assert_eq!(choices.as_object().unwrap().len(), found.len());
    for race in found {
        let chosen = &race["trials"][race["chosen"].as_u64().unwrap() as usize]["variant"];
        assert_eq!(&choices[race["shape"].as_str().unwrap()], chosen);
    }
    // Training takes what the file says, and comes to the same weights as without it.
    let last = |race: &serde_json::Value| race["trials"].as_array().unwrap().last().unwrap()["variant"].clone();
    for race in found {
        choices[race["shape"].as_str().unwrap()] = last(race);
    }
    std::fs::write(&file, known.to_string()).unwrap();
    let weights = |out: &str| {
        cqat(place.path(), &["train", "tiny.yaml", "--data", "data", "--out", out]).ok();
        let manifest = parsed(&std::fs::read_to_string(place.path().join(out).join("manifest.json")).unwrap());
        (common::last(&place.path().join(out)).tensors, manifest["kernels"].clone())
    };
    let (tuned, kernels) = weights("tuned");
    let of_ten: Vec<&serde_json::Value> =
        found.iter().filter(|r| !r["shape"].as_str().unwrap().contains("1x1x")).collect();
    assert!(of_ten.len() > 5);
    of_ten.iter().for_each(|race| assert_eq!(kernels[race["shape"].as_str().unwrap()], last(race)));
    let forgotten = cqat(place.path(), &["tune", "--forget"]).ok();
    assert_eq!(forgotten.out.trim(), file.display().to_string());
    assert_eq!(parsed(&std::fs::read_to_string(&file).unwrap()), serde_json::json!({}));
    let (default, others) = weights("default");
    assert_ne!(kernels, others);
    assert!(
        tuned.iter().all(|(name, t)| default[name]
            .data
            .iter()
            .map(|v| v.to_bits())
            .eq(t.data.iter().map(|v| v.to_bits())))
    );
}

#[test]
fn a_file_that_cannot_be_understood_is_passed_over() {
    let place = workplace();
    std::fs::create_dir(place.path().join("cache")).unwrap();
    std::fs::write(place.path().join("cache/tuned.json"), "{\"here\": [1, 2").unwrap();
    let ran = cqat(place.path(), &[&["plan", "cqat"], &TINY[..]].concat()).ok();
    assert!(
        ran.err.contains("tuned.json cannot be understood") && ran.err.contains("`cqat tune` writes it anew"),
        "{}",
        ran.err
    );
    // A folder that cannot be made: the name is taken.
    let mut tune = on_device(place.path(), &[&["tune", "cqat"], &TINY[..]].concat());
    tune.env("CQAT_CACHE", place.path().join("tiny.yaml"));
    common::Ran::of(tune).fails(2, "tiny.yaml cannot be made", "CQAT_CACHE=FOLDER");
}

#[test]
fn one_kernel_is_measured_in_all_its_variants() {
    let place = workplace();
    let bench = |more: &[&str]| cqat(place.path(), &[&["bench", "cqat"], &TINY[..], more].concat());
    let races = parsed(&bench(&["--kernel", "wgrad 32x32x8 to 32x32x8, 3x3/1, batch 8, U8", "--json"]).ok().out);
    let [race] = &races.as_array().unwrap()[..] else { panic!("{races:#}") };
    assert!(race["shape"].as_str().unwrap().starts_with("wgrad 32x32x8 to 32x32x8, 3x3/1, batch 8"), "{race:#}");
    assert!(race["trials"].as_array().unwrap().len() > 1 && race["trials"][0]["ms"].as_f64().unwrap() > 0.0);
    let text = bench(&["--kernel", "conv back 32x32x8"]).ok().out;
    assert!(text.contains(" GFLOP/s  ") && text.contains("conv back 32x32x8 to 32x32x8, 3x3/1"), "{text}");
    bench(&["--kernel", "conv 5x5"]).fails(
        2,
        "no matrix product of the network has \"conv 5x5\" in its shape:",
        "name a part",
    );
}
