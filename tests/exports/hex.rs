//! Memories: what a reader of the manifest makes of them is the network, and they alone give every golden integer.

use std::collections::HashMap;
use std::path::Path;

use cqat::export::Format;
use cqat::integer::IntegerNet;
use serde_json::Value;

use super::common::parsed;
use super::{files, golden, networks};

/// The memories of a folder, read as its manifest says: for each the integers, lanes that are left over included.
struct Memories {
    manifest: Value,
    integers: HashMap<String, Vec<i64>>,
    lanes: HashMap<String, usize>,
}

impl Memories {
    fn read(folder: &Path) -> Memories {
        let manifest = parsed(&std::fs::read_to_string(folder.join("manifest.json")).unwrap());
        let (mut integers, mut lanes) = (HashMap::new(), HashMap::new());
        for entry in manifest["memories"].as_array().unwrap() {
            let file = entry["file"].as_str().unwrap();
            let number = |key: &str| entry[key].as_u64().unwrap() as usize;
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            assert_eq!(text.lines().count(), number("words"), "{file}");
            assert_eq!(number("word_bits"), number("bits") * number("lanes"), "{file}");
            let word = |line: &str| {
                assert_eq!(line.len(), number("word_bits").div_ceil(4), "{file}: {line}");
                let word = u128::from_str_radix(line, 16).unwrap();
                assert!(number("word_bits") == 128 || word >> number("word_bits") == 0, "{file}: {line}");
                word
            };
            let sign = |code: i64| match entry["signed"].as_bool().unwrap() {
                true => (code << (64 - number("bits"))) >> (64 - number("bits")),
                false => code,
            };
            let lane = |word: u128, lane: usize| (word >> (lane * number("bits"))) as i64 & ((1 << number("bits")) - 1);
            let all = text.lines().map(word).flat_map(|w| (0..number("lanes")).map(move |k| (w, k)));
            let name = file.strip_prefix("hex/").unwrap().strip_suffix(".hex").unwrap().to_string();
            integers.insert(name.clone(), all.map(|(w, k)| sign(lane(w, k))).collect());
            lanes.insert(name, number("lanes"));
        }
        let on_disk = std::fs::read_dir(folder.join("hex")).unwrap().filter(|e| e.as_ref().unwrap().path().is_file());
        let on_disk = on_disk.count() + golden_files(folder);
        assert_eq!(integers.len(), on_disk, "the manifest has every memory");
        Memories { manifest, integers, lanes }
    }

    fn of(net: &IntegerNet) -> Memories {
        let place = tempfile::tempdir().unwrap();
        files(net, Format::Hex).write(&place.path().join("x")).unwrap();
        Memories::read(&place.path().join("x"))
    }

    fn at(&self, name: &str) -> &[i64] {
        &self.integers[name]
    }

    /// Multipliers, which a model of shifts says by their powers of two.
    fn multipliers(&self, name: &str) -> Vec<i64> {
        let power = |v: &i64| {
            let magnitude = if v % 32 == 0 { 0 } else { 1 << (v % 32 - 1) };
            if *v < 32 { magnitude } else { -magnitude }
        };
        let values = self.at(name);
        if self.manifest["model"]["multiplier"] == "shift" {
            values.iter().map(power).collect()
        } else {
            values.to_vec()
        }
    }
}

fn golden_files(folder: &Path) -> usize {
    let pictures = std::fs::read_dir(folder.join("hex/golden")).unwrap();
    pictures.map(|picture| std::fs::read_dir(picture.unwrap().path()).unwrap().count()).sum()
}

fn wide<T: Copy + Into<i64>>(values: impl IntoIterator<Item = T>) -> Vec<i64> {
    values.into_iter().map(Into::into).collect()
}

/// `rows` of `row` integers without the lanes that are left over, which hold 0.
fn without_rest(padded: &[i64], row: usize, lanes: usize) -> Vec<i64> {
    let whole = row.next_multiple_of(lanes);
    assert!(padded.chunks(whole).all(|p| p[row..].iter().all(|v| *v == 0)));
    padded.chunks(whole).flat_map(|p| p[..row].to_vec()).collect()
}

#[test]
fn memories_hold_the_network_and_its_integers() {
    for (name, net) in networks() {
        let m = Memories::of(&net);
        assert_eq!(m.at("input.codes"), wide(net.input.codes.concat()));
        let convs = net.layers.iter().flat_map(|l| std::iter::once(&l.conv).chain(l.projection()));
        for conv in convs {
            let codes = &conv.weights.codes;
            let at =
                |o: usize, y: usize, x: usize, i: usize| ((o * conv.real_in + i) * conv.kernel + y) * conv.kernel + x;
            let stored = |code: i8| i64::from(if conv.weights.odd { (code - 1).div_euclid(2) } else { code });
            let mut want = Vec::new();
            for o in 0..conv.to.c {
                for y in 0..conv.kernel {
                    for x in 0..conv.kernel {
                        want.extend((0..conv.real_in).map(|i| stored(codes[at(o, y, x, i)])));
                    }
                }
            }
            let file = format!("{}.codes", conv.name);
            assert_eq!(without_rest(m.at(&file), conv.real_in, m.lanes[&file]), want, "{name}: {file}");
        }
        for (conv, channels) in net
            .layers
            .iter()
            .map(|l| (&l.conv.name, &l.channels))
            .chain([(&net.classifier.name, &net.classifier.channels)])
        {
            assert_eq!(m.multipliers(&format!("{conv}.mul")), wide(channels.iter().map(|k| k.multiplier)));
            assert_eq!(m.at(&format!("{conv}.bias")), wide(channels.iter().map(|k| k.offset)));
            assert_eq!(m.at(&format!("{conv}.shift")), wide(channels.iter().map(|k| k.shift)));
        }
        let golden = golden(&net);
        let pictures = golden.count();
        fn part<T: Copy>(values: &[T], picture: usize, pictures: usize) -> Vec<T> {
            values[picture * values.len() / pictures..][..values.len() / pictures].to_vec()
        }
        for k in 0..pictures {
            let at = |of: &str| m.at(&format!("golden/{k}/{of}"));
            assert_eq!(at("input"), wide(part(&golden.trace.input, k, pictures)));
            for (layer, t) in net.layers.iter().zip(&golden.trace.layers) {
                assert_eq!(at(&format!("{}.acc", layer.conv.name)), wide(part(&t.accumulators, k, pictures)));
                assert_eq!(at(&layer.name), wide(part(&t.codes, k, pictures)), "{name}: {}", layer.name);
                if let Some(p) = layer.projection() {
                    assert_eq!(at(&format!("{}.acc", p.name)), wide(part(&t.projection, k, pictures)));
                }
            }
            assert_eq!(at("pooled"), wide(part(&golden.trace.pooled, k, pictures)));
            assert_eq!(at("fc.acc"), wide(part(&golden.trace.classifier, k, pictures)));
            assert_eq!(at("logits"), wide(part(&golden.trace.logits, k, pictures)));
            let codes = |at: usize, byte: i64| m.at("input.codes")[256 * (at % 3) + byte as usize];
            let input = at("picture").iter().enumerate().map(|(at, byte)| codes(at, *byte));
            assert!(input.eq(at("input").iter().copied()), "{name}: codes of the picture");
        }
    }
}

/// As a datapath reads them: word g of a pixel meets word g of a tap.
#[test]
fn memories_alone_give_every_code() {
    for (name, net) in networks() {
        let m = Memories::of(&net);
        let layers = m.manifest["model"]["layers"].as_array().unwrap();
        let value = |n: &Value| match n.as_u64().unwrap() as usize {
            0 => "input".to_string(),
            k => layers[k - 1]["name"].as_str().unwrap().to_string(),
        };
        for layer in layers {
            let conv = &layer["conv"];
            let name_of = |part: &str| format!("{}.{part}", conv["name"].as_str().unwrap());
            let file = |part: &str| m.at(&name_of(part));
            let multipliers = m.multipliers(&name_of("mul"));
            let main = accumulators(&m, conv, &value(&conv["input"]));
            assert_eq!(main, file_of(&m, conv, "acc"), "{name}: {conv}");
            let channels = multipliers.len();
            let (added, factors) = match &layer["shortcut"] {
                Value::String(_) => (vec![0; main.len()], vec![0; channels]),
                shortcut if shortcut.get("identity").is_some() => {
                    let codes = m.at(&format!("golden/1/{}", value(&shortcut["identity"])));
                    (codes.to_vec(), m.multipliers(&name_of("shortcut")))
                }
                shortcut => {
                    let p = &shortcut["projection"];
                    let sums = accumulators(&m, p, &value(&p["input"]));
                    assert_eq!(sums, file_of(&m, p, "acc"), "{name}: {p}");
                    (sums, m.multipliers(&format!("{}.mul", p["name"].as_str().unwrap())))
                }
            };
            let window = |key: &str| layer["window"][key].as_i64().unwrap();
            let half = if layer["window"]["round"] == true { (1 << window("shift")) >> 1 } else { 0 };
            let codes = main.iter().zip(&added).enumerate().map(|(at, (acc, r))| {
                let c = at % channels;
                let n = file("shift")[c];
                let base = (acc * multipliers[c] + r * factors[c] + file("bias")[c] + (1 << (n - 1))) >> n;
                let base = base.clamp(window("base_lo"), window("base_hi"));
                ((base + half) >> window("shift")).clamp(window("lo"), window("hi"))
            });
            let codes: Vec<i64> = codes.collect();
            assert_eq!(codes, m.at(&format!("golden/1/{}", layer["name"].as_str().unwrap())), "{name}: {layer}");
        }
    }
}

fn file_of<'a>(m: &'a Memories, conv: &Value, part: &str) -> &'a [i64] {
    m.at(&format!("golden/1/{}.{part}", conv["name"].as_str().unwrap()))
}

/// Accumulators of the second picture, of a convolution as the manifest describes it.
fn accumulators(m: &Memories, conv: &Value, input: &str) -> Vec<i64> {
    let name = format!("{}.codes", conv["name"].as_str().unwrap());
    let (weights, codes) = (m.at(&name), m.at(&format!("golden/1/{input}")));
    let number = |v: &Value| v.as_u64().unwrap() as usize;
    let (kernel, stride) = (number(&conv["kernel"]), number(&conv["stride"]));
    let side = |of: &str, k: usize| number(&conv[of][k]);
    let row = side("from", 2).next_multiple_of(m.lanes[&name]);
    let weight = |stored: i64| if conv["odd"] == true { 2 * stored + 1 } else { stored };
    let mut sums = Vec::new();
    for y in 0..side("to", 0) {
        for x in 0..side("to", 1) {
            for o in 0..side("to", 2) {
                let mut sum = 0;
                for tap in 0..kernel * kernel {
                    let (down, right) = (y * stride + tap / kernel, x * stride + tap % kernel);
                    let (Some(iy), Some(ix)) = (down.checked_sub(kernel / 2), right.checked_sub(kernel / 2)) else {
                        continue;
                    };
                    if iy < side("from", 0) && ix < side("from", 1) {
                        let pixel = &codes[(iy * side("from", 1) + ix) * row..][..row];
                        let tap = &weights[(o * kernel * kernel + tap) * row..][..row];
                        sum += tap.iter().zip(pixel).map(|(w, q)| weight(*w) * q).sum::<i64>();
                    }
                }
                sums.push(sum);
            }
        }
    }
    sums
}
