//! Model files: they come back as they were, and what is damaged or impossible is told.

use cqat::config::{Granularity, Method, QuantConfig, Reduce};
use cqat::integer::{IntegerNet, Multiplier};
use cqat::model::{Model, Source};
use safetensors::tensor::{SafeTensors, TensorView};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Case, NORMALISATION};

fn model(net: IntegerNet) -> Model {
    let class_names = (0..net.classifier.classes).map(|c| format!("class {c}")).collect();
    let source = Source { program: "1".into(), run: "r".into(), config: "{}".into(), data_sha256: "d".into() };
    Model { net, class_names, normalisation: NORMALISATION, source }
}

fn small() -> Model {
    model(Case::new(8, 8, &QuantConfig::default(), 1).folded())
}

#[test]
fn models_come_back_as_they_were() {
    let bits = |weight_bits, activation_bits| QuantConfig { weight_bits, activation_bits, ..QuantConfig::default() };
    let mut per_channel = bits(3, 2);
    per_channel.weights.granularity = Granularity::PerChannel;
    let dropped = QuantConfig { reduce: Reduce::DropLsbRound, ..QuantConfig::default() };
    let odd = QuantConfig { method: Method::Ewgs, ..QuantConfig::default() };
    for (k, config) in [bits(5, 4), bits(8, 8), per_channel, dropped, odd].iter().enumerate() {
        for depth in [8, 10] {
            let model = model(Case::new(depth, 8, config, k as u32).folded());
            let bytes = model.to_bytes().unwrap();
            assert_eq!(bytes, model.to_bytes().unwrap(), "the same bytes every time");
            assert!(Model::of_bytes(&bytes).unwrap() == model, "{config:?}");
        }
    }
}

/// Weights of five bits take five bits.
#[test]
fn codes_are_packed() {
    let bytes = small().to_bytes().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let codes = file.tensor("layer1.0.conv1.codes").unwrap();
    assert_eq!((codes.shape(), codes.data().len()), (&[8, 45][..], 8 * 45)); // 8 x 9 codes of 5 bits
    assert_eq!(file.tensor("fc.codes").unwrap().shape(), [10, 32]);
    for part in ["mul", "shift", "bias", "scale"] {
        file.tensor(&format!("layer1.0.conv1.{part}")).unwrap();
    }
    file.tensor("layer1.0.conv2.shortcut").unwrap();
    file.tensor("layer2.0.downsample.0.mul").unwrap();
}

#[test]
fn any_damage_is_found() {
    let bytes = small().to_bytes().unwrap();
    let refused = |bytes: &[u8]| Model::of_bytes(bytes).err().map(|e| format!("{e}; {}", e.hint_text().unwrap_or("")));
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        assert!(refused(&bytes[..length]).unwrap().contains("not a whole safetensors file"), "{length} bytes");
    }
    for at in (0..bytes.len()).step_by(bytes.len() / 150) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(refused(&flipped).is_some(), "a flipped bit of byte {at} is not seen");
    }
    let last = bytes.len() - 1;
    let mut flipped = bytes.clone();
    flipped[last] ^= 1;
    let message = refused(&flipped).unwrap();
    assert!(message.contains("has another hash than it was written with") && message.contains("damaged"), "{message}");
}

/// The file with another manifest, hashes made anew: as somebody's own tool may write it.
fn with_manifest(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let text = &header.metadata().as_ref().unwrap()["cqat_model"];
    let mut manifest: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    change(&mut manifest);
    let text = manifest.to_string();
    let hash: String = Sha256::digest(&text).iter().map(|b| format!("{b:02x}")).collect();
    let file = SafeTensors::deserialize(bytes).unwrap();
    let views: Vec<(String, TensorView)> = file.tensors();
    safetensors::serialize(views, Some([("cqat_model".to_string(), format!("{hash}\n{text}"))].into())).unwrap()
}

/// Pictures of side 1024 without strides, and five bits before the pool.
fn large(m: &mut Value) {
    m["size"] = json!(1024);
    let layers = m["layers"].as_array_mut().unwrap();
    layers.last_mut().unwrap()["window"]["hi"] = json!(31);
    layers.last_mut().unwrap()["bits"] = json!(5);
    for layer in layers {
        let projection = layer["shortcut"].get_mut("projection").map(Value::take);
        for conv in [Some(layer["conv"].take()), projection].into_iter().flatten() {
            let mut conv = conv;
            conv["stride"] = json!(1);
            for end in ["from", "to"] {
                (conv[end][0], conv[end][1]) = (json!(1024), json!(1024));
            }
            let place = if conv["kernel"] == 1 { &mut layer["shortcut"]["projection"] } else { &mut layer["conv"] };
            *place = conv;
        }
    }
    m["classifier"]["pixels"] = json!(1024 * 1024);
}

#[test]
fn what_no_network_can_be_is_refused() {
    let bytes = small().to_bytes().unwrap();
    let refused = |change: fn(&mut Value), message: &str| {
        let e = Model::of_bytes(&with_manifest(&bytes, change)).expect_err(message);
        assert!(e.to_string().contains(message) && e.hint_text().is_some(), "{e}, expected {message}");
    };
    assert!(Model::of_bytes(&with_manifest(&bytes, |_| ())).is_ok());
    refused(|m| m["format_version"] = json!(9), "has format_version 9, expected 1");
    refused(|m| m["layers"][1]["op"] = json!("attention"), "its layer layer1.0.relu1 is a attention");
    refused(|m| m["layers"][1]["conv"]["bits"] = json!(9), "layer1.0.conv1 has weights of 9 bits, expected 2 to 8");
    refused(
        |m| m["layers"][1]["conv"]["bits"] = json!(4),
        "its tensor layer1.0.conv1.codes is U8 [8, 45], expected U8 [8, 36]",
    );
    refused(|m| m["layers"][1]["conv"]["input"] = json!(7), "layer1.0.conv1 reads value 7");
    refused(|m| m["layers"][1]["conv"]["input"] = json!(0), "layer1.0.conv1 does not fit what it reads");
    refused(|m| m["layers"][2]["shortcut"] = json!({"identity": 0}), "adds a value of shape");
    refused(|m| m["layers"][1]["window"]["hi"] = json!(256), "has codes of 4 bits");
    refused(|m| m["layers"][1]["window"]["hi"] = json!(31), "has codes of 4 bits");
    refused(
        |m| (m["layers"][1]["window"]["lo"], m["layers"][1]["window"]["hi"]) = (json!(-1), json!(i32::MAX)),
        "of 4 bits",
    );
    refused(|m| m["layers"][1]["name"] = json!("Logits"), "that of something else");
    refused(|m| m["layers"][1]["scale"] = json!(-1.0), "the scale of layer1.0.relu1 is -1");
    refused(|m| m["input"]["scale"] = json!(0.0), "the scale of the picture is 0");
    refused(|m| m["layers"][1]["name"] = json!("logits"), "that of something else");
    refused(|m| m["layers"][1]["name"] = json!("STEM"), "two layers of name STEM");
    refused(|m| m["layers"][1]["name"] = json!("stem.codes"), "a part of another one");
    refused(|m| m["multiplier"] = json!("bits16"), "expected one of --multiplier 16");
    refused(|m| m["layers"][1]["colour"] = json!(1), "its manifest lacks something");
    refused(|m| m["accumulator"]["bits"] = json!(40), "accumulators have 40 bits");
    refused(|m| m["layers"][1]["name"] = json!("../x"), "has a layer of name \"../x\"");
    refused(|m| m["layers"][1]["conv"]["name"] = json!("a\"b"), "has a layer of name");
    refused(|m| m["layers"][1]["name"] = json!("stem"), "has two layers of name stem");
    refused(|m| m["classes"] = json!(["one"]), "does not fit what it reads");
    refused(|m| m["layers"][1]["conv"]["to"] = json!([1024, 1024, 8192]), "codes for a picture, expected at most");
    refused(large, "a sum of codes before fc can reach 32505856, expected less than 2^24");
    refused(|m| drop(m["sha256"].as_object_mut().unwrap().remove("fc.codes")), "does not know the tensor fc.codes");
    assert!(
        Model::of_bytes(&safetensors::serialize(Vec::<(&str, TensorView)>::new(), None).unwrap())
            .unwrap_err()
            .to_string()
            .contains("is no model")
    );
}

/// Sixteen bits move codes by next to nothing; shifts need a network that was trained for them.
#[test]
fn multipliers_may_be_narrower() {
    let case = Case::new(8, 8, &QuantConfig::default(), 2);
    let with = |multiplier| IntegerNet::fold(&case.net, &case.spec, &case.tensors, &case.normalisation, multiplier);
    let (wide, narrow) = (with(Multiplier::Bits32).unwrap(), with(Multiplier::Bits16).unwrap());
    let images = super::Random::new(3).bytes(20 * wide.picture_bytes());
    let [a, b] = [&wide, &narrow].map(|net| net.run_layers(&images).unwrap());
    for (k, layer) in narrow.layers.iter().enumerate() {
        assert!(
            layer.channels.iter().all(|c| i16::try_from(c.multiplier).is_ok() && i16::try_from(c.shortcut).is_ok())
        );
        let pairs = a.layers[k].codes.iter().zip(&b.layers[k].codes);
        let apart: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).filter(|apart| *apart > 0).collect();
        let (rare, most) = if layer.bits < 8 { (50, 1) } else { (5, 3) };
        assert!(apart.len() * rare < a.layers[k].codes.len(), "{}: {} codes differ", layer.name, apart.len());
        assert!(apart.iter().all(|apart| *apart <= most), "{}: {:?}", layer.name, apart.iter().max());
    }
    let e = with(Multiplier::Shift).unwrap_err();
    assert!(e.to_string().contains("expected a power of two") && e.hint_text().unwrap().contains("cqat-shift"));
    assert!(Model::of_bytes(&model(narrow.clone()).to_bytes().unwrap()).unwrap().net == narrow);
}
