//! The command line: help, output, machine-readable answers and exit codes.

mod common;

use std::path::Path;
use std::sync::LazyLock;

use assert_cmd::Command;
use common::{Ran, command, cqat, on_device, parsed, workplace};
use serde_json::Value;
use tempfile::TempDir;

/// A place with a finished run in `run`, and what training it said on standard error.
static PLACE: LazyLock<(TempDir, String)> = LazyLock::new(|| {
    let place = workplace();
    let sets = ["--set", "train.float_epochs=1", "--set", "train.quant_epochs=1", "--set", "data.validation=8"];
    let ran = cqat(place.path(), &[&["train", "tiny.yaml", "--out", "run"], &sets[..]].concat()).ok();
    (place, ran.err)
});

fn place() -> &'static Path {
    PLACE.0.path()
}

/// Output of a command that needs no device.
fn printed(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cqat")).args(arguments).assert().success().get_output().clone();
    assert!(output.stderr.is_empty(), "nothing else is said");
    String::from_utf8(output.stdout).unwrap()
}

/// Numbers that depend on the device or the clock become `#`, with their signs; runs of spaces one space.
fn without_numbers(text: &str) -> String {
    let word = |word: &str| {
        let core = word.trim_matches(|c: char| "+-,%()".contains(c));
        let number = core.starts_with(|c: char| c.is_ascii_digit()) && core.parse::<f64>().is_ok();
        if number { word.replace(core, "#").replace("-#", "#").replace("+#", "#") } else { word.to_string() }
    };
    text.lines().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn help_of_every_command() {
    insta::assert_snapshot!("help", printed(&["--help"]));
    let commands = [
        "train",
        "sweep",
        "quantize",
        "export",
        "eval",
        "infer",
        "data",
        "devices",
        "doctor",
        "plan",
        "bench",
        "tune",
        "selftest",
        "demo",
        "watch",
        "compare",
        "report",
        "sensitivity",
        "presets",
    ];
    for name in commands.into_iter().chain(["data fetch", "data info"]) {
        let arguments: Vec<&str> = name.split(' ').chain(["--help"]).collect();
        insta::assert_snapshot!(format!("help-{}", name.replace(' ', "-")), printed(&arguments));
    }
    assert_eq!(printed(&["--version"]), format!("cqat {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("selftest") && script.contains("stop-after"), "{shell}");
    }
    let page = printed(&["man"]);
    assert!(page.starts_with(".ie") && page.contains("selftest"), "{}", &page[..200]);
    let folder = tempfile::tempdir().unwrap();
    let ran = Ran::of(command(folder.path(), &["man", "--out", "pages"])).ok();
    assert!(ran.out.is_empty());
    for name in ["cqat.1", "cqat-train.1", "cqat-data-fetch.1"] {
        assert!(folder.path().join("pages").join(name).exists(), "{name}");
    }
    Ran::of(command(folder.path(), &["man", "--out", "pages/cqat.1/x"])).fails(2, "cannot be written to", "writable");
}

/// A name may come out of an archive or a folder of somebody else's.
#[test]
fn names_do_not_steer_the_terminal() {
    let ran = Ran::of(command(place(), &["data", "info", "no\u{1b}]0;title\u{7}where"]));
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("no\\u{1b}]0;title\\u{7}where does not exist"), "{}", ran.err);
    assert!(!ran.err.contains(|c: char| c.is_control() && c != '\n'), "{:?}", ran.err);
}

#[test]
fn the_doctor_examines_every_adapter() {
    let json = parsed(&Ran::of(command(place(), &["doctor", "--json"])).ok().out);
    let adapters = json["adapters"].as_array().unwrap();
    assert_eq!(adapters.iter().filter(|a| a["chosen"] == true).count(), 1, "{json}");
    for adapter in adapters {
        assert!(adapter["error"].is_null() && adapter["caps"]["budget_bytes"].as_u64().unwrap() > 0, "{adapter}");
        assert_eq!(adapter["chosen"] == false, adapter["not_chosen"].is_string(), "{adapter}");
    }
    let text = Ran::of(command(place(), &["doctor"])).ok().out;
    assert!(text.contains("taken without --device\n") && text.contains("cqat selftest"), "{text}");
    let features = json["adapters"][0]["features"].as_object().unwrap();
    assert!(features["SUBGROUP"].is_boolean() && features.contains_key("EXPERIMENTAL_COOPERATIVE_MATRIX"), "{json}");
    assert!(text.contains("  features offered: "), "{text}");
    let text = Ran::of(command(place(), &["doctor", "--device", "cpu"])).ok().out;
    assert!(text.contains("taken with --device cpu\n"), "{text}");
    Ran::of(command(place(), &["doctor", "--device", "nonesuch"])).fails(4, "no adapter matches", "the adapters are");
    let mut blind = command(place(), &["doctor"]);
    blind.env("VK_DRIVER_FILES", "/nowhere/icd.json").env("VK_ICD_FILENAMES", "/nowhere/icd.json");
    let ran = Ran::of(blind).fails(4, "no Vulkan, Metal or DX12 adapter was found", "install");
    assert!(ran.out.contains("VK_DRIVER_FILES names /nowhere/icd.json, which does not exist: unset it"), "{}", ran.out);
}

#[test]
fn a_run_is_watched_from_elsewhere() {
    let text = printed(&["watch", run("run")]);
    assert!(text.contains("finished\nquant epoch 1\n") && text.contains("val top-1, %"), "{text}");
    assert!(text.lines().any(|l| l.starts_with("layer2.0.conv2") && l.contains("weight")), "{text}");
    Ran::of(command(place(), &["watch", "nowhere"])).fails(5, "nowhere", "");
    for every in ["0", "1e20", "NaN"] {
        let message = "expected 0.1 to 86400 seconds";
        Ran::of(command(place(), &["watch", "run", "--every", every])).fails(2, message, "2 is the default");
    }
}

#[test]
fn two_runs_are_compared() {
    let sets = ["--set", "train.float_epochs=0", "--set", "train.quant_epochs=1", "--set", "quant.weight_bits=4"];
    let beats = ["--set", "train.heartbeat_seconds=0.001", "--set", "data.validation=8"];
    let ran = cqat(place(), &[&["train", "tiny.yaml", "--out", "other"], &sets[..], &beats].concat()).ok();
    assert!(ran.err.contains("quant 1/1  step 5/5") && ran.err.contains(" images/s  0 s left"), "{}", ran.err);
    let metrics = std::fs::read_to_string(place().join("other/metrics.jsonl")).unwrap();
    let beat = metrics.lines().map(parsed).find(|l| l["kind"] == "heartbeat").unwrap();
    for key in ["phase", "epoch", "step", "steps", "images_per_second", "time"] {
        assert!(!beat[key].is_null(), "{key}: {beat}");
    }
    let json = parsed(&printed(&["compare", run("run"), run("other"), "--json"]));
    assert_eq!(json["config"]["quant.weight_bits"], serde_json::json!([5, 4]));
    assert_eq!(json["config"]["train.float_epochs"], serde_json::json!([1, 0]));
    assert!(
        json["config"].get("network.width").is_none() && json["environment"].as_object().unwrap().is_empty(),
        "{json}"
    );
    assert!(json["result"]["quant.val.top1"].is_array() && json["result"]["float.train.loss"][1].is_null(), "{json}");
    let text = printed(&["compare", run("run"), run("other")]);
    assert!(text.contains("environment: the same") && text.contains("quant.weight_bits"), "{text}");
    // What differs is seen to differ.
    let rows = text.lines().filter(|l| l.starts_with("  ")).map(|l| l.split_whitespace().collect::<Vec<_>>());
    assert!(rows.into_iter().all(|row| row[row.len() - 1] != row[row.len() - 2]), "{text}");
    let same = printed(&["compare", run("run"), run("run")]);
    assert_eq!(same.matches(": the same").count(), 3, "{same}");
    Ran::of(command(place(), &["compare", "run", "data"])).fails(5, "data", "");
}

/// The path of a run in the place, for commands that run elsewhere.
fn run(name: &str) -> &'static str {
    place().join(name).into_os_string().into_string().unwrap().leak()
}

#[test]
fn presets_are_listed_and_printed() {
    insta::assert_snapshot!("presets", printed(&["presets"]));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/demo.yaml");
    assert_eq!(printed(&["presets", "demo"]), std::fs::read_to_string(file).unwrap());
    let ran = Ran::of(command(place(), &["presets", "dmeo"]));
    let ran = ran.fails(2, "invalid value 'dmeo'", "");
    assert!(ran.err.contains("[possible values: demo, cqat, paper,"), "{}", ran.err);
}

#[test]
fn usage_errors_exit_with_2() {
    for (arguments, message) in [
        (&["trian"][..], "unrecognized subcommand 'trian'"),
        (&[], "Usage: cqat"),
        (&["train", "--resume", "run", "tiny.yaml"], "cannot be used with"),
        (&["train", "--resume", "run", "--out", "x"], "cannot be used with"),
        (&["eval"], "<RUN|MODEL>"),
        (&["eval", "run", "--kind", "floaty"], "possible values: float, fake_quant, folded"),
        (&["bench", "demo", "--steps", "many"], "invalid value 'many'"),
    ] {
        let ran = Ran::of(command(place(), arguments));
        assert_eq!(ran.code, 2, "{arguments:?}");
        assert!(ran.err.contains(message), "{arguments:?}: {}", ran.err);
        assert!(ran.out.is_empty());
    }
    cqat(place(), &["bench", "demo", "--steps", "0"]).fails(2, "--steps is 0, expected at least 1", "");
    let sets = ["--set", "quant.method=none", "--set", "train.quant_epochs=0"];
    cqat(place(), &[&["demo"], &sets[..]].concat()).fails(2, "the demo compares float with a quantizer", "train demo");
}

#[test]
fn every_kind_of_failure_has_its_exit_code() {
    // 130 stands in the tests of resuming.
    let code = |arguments: &[&str]| cqat(place(), arguments).code;
    assert_eq!(code(&["plan", "tiny.yaml", "--set", "train.batch=0"]), 2);
    assert_eq!(code(&["train", "tiny.yaml", "--data", "nowhere", "--out", "x"]), 3);
    assert_eq!(code(&["plan", "tiny.yaml", "--set", "device.memory_mib=1"]), 4);
    assert_eq!(code(&["train", "tiny.yaml", "--out", "run"]), 5);
    assert_eq!(Ran::of(command(place(), &["devices", "--device", "no such adapter"])).code, 4);
}

#[test]
fn devices_are_listed() {
    let list = parsed(&Ran::of(command(place(), &["devices", "--json"])).ok().out);
    let list = list.as_array().unwrap();
    assert!(!list.is_empty());
    let lines = Ran::of(command(place(), &["devices"])).ok().out;
    for (i, (adapter, line)) in list.iter().zip(lines.lines()).enumerate() {
        assert_eq!(adapter["index"], i);
        let (name, kind) = (adapter["name"].as_str().unwrap(), adapter["kind"].as_str().unwrap());
        assert!(line.starts_with(&format!("{i}  {name}  {kind} over ")), "{line}");
        for key in ["driver", "driver_info", "backend"] {
            assert!(line.contains(adapter[key].as_str().unwrap()), "{key}: {line}");
        }
    }
    assert_eq!(lines.lines().count(), list.len());
    let software = list.iter().any(|a| a["software"] == true);
    assert!(software || common::device() != "cpu", "the tests run on a software adapter: {list:?}");
}

#[test]
fn a_plan_shows_layers_kernels_memory_and_arithmetic() {
    let plan = cqat(place(), &["plan", "tiny.yaml"]).ok().out;
    // The kernels depend on the adapter; tests/planner.rs has them for made-up ones.
    let (layers, rest) = plan.split_once("\n\n").unwrap();
    for line in layers.lines().skip(1).filter(|l| !l.starts_with("pool")) {
        let kernel = if line.contains("bits") || line.starts_with("input") { line } else { "augment" };
        assert!(kernel.contains("conv/") || kernel.contains("act_fwd") || kernel.contains("augment"), "{line}");
    }
    let columns: String = layers.lines().map(|l| format!("{}\n", l[..55.min(l.len())].trim_end())).collect();
    insta::assert_snapshot!("plan", format!("{columns}\n{}", without_numbers(rest)));

    let json = parsed(&cqat(place(), &["plan", "tiny.yaml", "--json"]).ok().out);
    let layer = |name: &str| {
        let layers = json["layers"].as_array().unwrap();
        layers.iter().find(|l| l["name"] == name).unwrap_or_else(|| panic!("no layer {name}")).clone()
    };
    assert_eq!((&json["parameters"], &json["batch"]), (&22_924.into(), &8.into()));
    assert!(json["macs"].as_u64().unwrap() > 1_000_000 && json["peak_buffer_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!((&layer("conv1")["bits"], &layer("layer1.0.conv1")["bits"]), (&8.into(), &5.into()));
    assert_eq!((&layer("stem")["bits"], &layer("layer3.0.relu2")["bits"]), (&4.into(), &8.into()));
    assert_eq!(layer("layer3.0.downsample.0")["output"], "8x8x32, 1x1/2");
    assert!(layer("conv1")["kernels"].as_array().unwrap().len() > 3);
    // Where no data is read: the classes of the configuration, else of the embedded pictures, else of CIFAR-100.
    let classes = |arguments: &[&str]| {
        let plan = cqat(place(), &[&["plan"], arguments].concat()).ok().out;
        plan.lines().find(|l| l.starts_with("fc ")).unwrap().split_whitespace().nth(1).unwrap().to_string()
    };
    assert_eq!(classes(&["tiny.yaml"]), "1x1x100");
    assert_eq!(classes(&["demo"]), "1x1x10");
    assert_eq!(classes(&["demo", "--set", "network.classes=7"]), "1x1x7");
}

#[test]
fn bench_answers_a_program() {
    let arguments = ["bench", "tiny.yaml", "--set", "train.batch=4", "--steps", "2"];
    let json = parsed(&cqat(place(), &[&arguments[..], &["--json", "--trace", "step.json"]].concat()).ok().out);
    for key in ["images_per_second", "step_ms", "peak_buffer_bytes", "first_step_seconds", "dispatches"] {
        assert!(json[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {json}");
    }
    for key in ["device_ms", "host_overhead_percent"] {
        // null where an adapter has no timestamps
        assert!(json.get(key).is_some_and(|v| v.is_number() || v.is_null()), "{key}: {json}");
    }
    for key in ["adapter", "driver", "network", "method"] {
        assert!(json[key].as_str().is_some_and(|v| !v.is_empty()), "{key}: {json}");
    }
    assert_eq!((&json["method"], &json["batch"], &json["steps"]), (&"W5A4".into(), &4.into(), &2.into()));
    // Software adapters have timestamps. Every launch is in the trace, and in one row of the kernels.
    for key in ["roofline_ratio", "kernels_ms"] {
        assert!(json[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {json}");
    }
    assert!(json["ceilings"]["gflops"].as_f64() > Some(0.1) && json["ceilings"]["gbs"].as_f64() > Some(0.1), "{json}");
    let kernels = json["kernels"].as_array().unwrap();
    let sum = |key: &str| kernels.iter().map(|k| k[key].as_f64().unwrap()).sum::<f64>();
    assert_eq!(Some(sum("launches")), json["dispatches"].as_f64());
    assert!((sum("ms") - json["kernels_ms"].as_f64().unwrap()).abs() < 1e-6);
    let back = |k: &&serde_json::Value| k["name"] == "conv" && k["shape"] == "16x16x16, 3x3/1 back";
    assert!(kernels.iter().find(back).is_some_and(|k| k["gflops"].as_f64() > Some(0.0)), "{json}");
    let trace = parsed(&std::fs::read_to_string(place().join("step.json")).unwrap());
    let events = trace["traceEvents"].as_array().unwrap();
    assert_eq!(Some(events.len() as f64), json["dispatches"].as_f64());
    assert!(events.iter().all(|e| e["ph"] == "X" && e["ts"].is_number() && e["dur"].is_number()), "{trace}");
    cqat(place(), &[&arguments[..], &["--trace", "nowhere/step.json"]].concat()).fails(
        2,
        "nowhere/step.json cannot be written",
        "writable",
    );
    cqat(place(), &["bench", "tiny.yaml", "--steps", "0"]).fails(2, "--steps is 0", "5 is the default");
    let text = cqat(place(), &[&arguments[..], &["--float"]].concat()).ok().out;
    assert!(text.starts_with("ResNet-8 width 8, float, batch 4, on "), "{text}");
    for line in ["images/s ", "step ", "buffers ", "dispatches ", "ceilings ", "roofline ratio ", "first step "] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}: {text}");
    }
}

#[test]
fn eval_answers_a_program_for_each_kind_and_split() {
    for (kind, split, samples) in [
        ("float", "test", 16),
        ("fake_quant", "test", 16),
        ("folded", "test", 16),
        ("fake_quant", "val", 8),
        ("float", "train", 40),
    ] {
        let ran = cqat(place(), &["eval", "run", "--kind", kind, "--split", split, "--json"]).ok();
        let json = parsed(&ran.out);
        assert_eq!((&json["kind"], &json["samples"]), (&kind.into(), &samples.into()), "{json}");
        let number = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{key}: {json}"));
        assert!(number("loss") > 0.0 && number("top5") >= number("top1") && number("top5") <= 100.0, "{json}");
        assert_eq!(json["data"], "cifar100");
    }
    let text = cqat(place(), &["eval", "run"]).ok().out;
    assert_eq!(
        without_numbers(text.split(" (").next().unwrap()),
        "cifar100 fake_quant: top-1 # %, top-5 # %, loss # over # pictures\n"
    );
    // A checkpoint file instead of a run folder; a float one is scored in float.
    let text = cqat(place(), &["eval", "run/float.safetensors"]).ok().out;
    assert!(text.starts_with("cifar100 float: "), "{text}");
}

#[test]
fn a_run_folder_holds_what_scripts_rely_on() {
    let read = |name: &str| std::fs::read_to_string(place().join("run").join(name)).unwrap();
    let manifest = parsed(&read("manifest.json"));
    assert_eq!(manifest["format_version"], 1);
    assert!(manifest["adapter"]["driver"].is_string() && manifest["data_sha256"].as_str().unwrap().len() == 64);
    assert_eq!(manifest["command"][1], "train");
    for key in ["wgpu", "naga"] {
        assert!(manifest[key].as_str().unwrap().starts_with(|c: char| c.is_ascii_digit()), "{key}: {manifest}");
    }
    let config = cqat::config::Config::load(place().join("run/config.yaml").to_str().unwrap(), &[]).unwrap();
    assert_eq!((config.network.classes, config.format_version), (Some(100), 1));
    let dir = config.data.dir.unwrap();
    assert!(Path::new(&dir).is_absolute() && dir.ends_with("data"), "a run is resumed from anywhere: {dir}");
    let lines: Vec<Value> = read("metrics.jsonl").lines().map(parsed).collect();
    assert_eq!((&lines[0]["kind"], &lines[0]["format_version"]), (&"header".into(), &1.into()));
    let epoch = lines.iter().find(|l| l["kind"] == "epoch" && l["split"] == "train").unwrap();
    for key in ["phase", "epoch", "loss", "top1", "top5", "samples", "lr", "step", "seconds", "images_per_second"] {
        assert!(!epoch[key].is_null(), "{key}: {epoch}");
    }
    let layer = |tensor: &str, name: &str| {
        lines.iter().find(|l| l["kind"] == "layer" && l["tensor"] == tensor && l["layer"] == name).unwrap()
    };
    assert!(layer("weight", "layer2.0.conv2").get("changed").is_some_and(Value::is_null), "no epoch came before");
    for line in [layer("weight", "layer2.0.conv2"), layer("activation", "layer2.0.relu1")] {
        for key in ["bits", "scale", "range", "saturated", "blocked", "epoch"] {
            assert!(line[key].is_number(), "{key}: {line}");
        }
    }
}

#[test]
fn saturated_activations_are_warned_of() {
    let narrow = ["quant.activations.scale_with_bits=false", "quant.activations.range_factor=0.2"];
    let sets = narrow.iter().chain(&["train.float_epochs=0", "train.quant_epochs=1"]).flat_map(|s| ["--set", s]);
    let arguments: Vec<&str> = ["train", "tiny.yaml", "--out", "narrow"].into_iter().chain(sets).collect();
    let ran = cqat(place(), &arguments).ok();
    assert!(ran.err.contains("% of the positive values saturate") && ran.err.contains("range_factor"), "{}", ran.err);
    assert!(PLACE.1.contains("quant 1/1") && !PLACE.1.contains("saturate"), "{}", PLACE.1);
}

#[test]
fn the_demo_ends_with_its_table() {
    let sets = ["data.dir=data", "network.width=8", "train.float_epochs=1", "train.quant_epochs=1", "train.batch=8"];
    let sets = sets.iter().flat_map(|s| ["--set", s]);
    let arguments: Vec<&str> = ["demo", "--quiet", "--out", "demo"].into_iter().chain(sets).collect();
    let ran = cqat(place(), &arguments).ok();
    assert!(ran.err.is_empty(), "{}", ran.err);
    insta::assert_snapshot!("demo", without_numbers(&ran.out));
    assert!(place().join("demo/last.safetensors").exists());
}

#[test]
fn selftest_checks_this_device() {
    let ran = cqat(place(), &["selftest"]).ok();
    let (last, checks) =
        ran.out.lines().collect::<Vec<_>>().split_last().map(|(l, c)| (l.to_string(), c.len())).unwrap();
    assert!(last.starts_with("all checks passed on "), "{}", ran.out);
    assert!(checks > 20 && ran.out.lines().take(checks).all(|l| l.starts_with("ok    ")), "{}", ran.out);
    let ran = cqat(place(), &["selftest", "--oracle", "run/last.safetensors"]);
    ran.fails(3, "run/last.safetensors is no reference dump: it has no tensor inputs", "a dump holds inputs, labels");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = on_device(place(), &["plan", "paper", "--json", "--set", "train.batch=1"]).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}
