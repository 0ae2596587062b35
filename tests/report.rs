//! `cqat report` and `cqat sensitivity`: what they show, and what they make of runs that are broken.

mod common;

use std::path::Path;
use std::sync::LazyLock;

use common::{Ran, contents, cqat, on_device, parsed, workplace};
use cqat::config::Method;
use cqat::sensitivity::Start;
use tempfile::TempDir;

/// Two seeds of one method, a float run, a run that has not begun, and folders that hold no run, all in `sweep`.
static PLACE: LazyLock<TempDir> = LazyLock::new(|| {
    let place = workplace();
    let train = |name: &str, sets: &[&str]| {
        let out = format!("sweep/{name}");
        let sets = sets.iter().flat_map(|s| ["--set", s]);
        let fixed = ["train", "tiny.yaml", "--out", &out, "--set", "train.float_epochs=1"];
        cqat(place.path(), &fixed.into_iter().chain(sets).collect::<Vec<_>>()).ok();
    };
    train("a", &["train.quant_epochs=2", "train.seed=1"]);
    train("b", &["train.quant_epochs=2", "train.seed=2"]);
    train("float", &["quant.method=none", "train.quant_epochs=0"]);
    cqat(place.path(), &["train", "tiny.yaml", "--out", "sweep/waiting", "--stop-after", "0"]).ok();
    let folder = |name: &str, file: &str, text: &str| {
        std::fs::create_dir_all(place.path().join(name)).unwrap();
        std::fs::write(place.path().join(name).join(file), text).unwrap();
    };
    folder("sweep/half", "manifest.json", "{");
    folder("sweep/<script>", "config.yaml", "nonsense: {");
    folder("sweep/newer", "config.yaml", "format_version: 99\n");
    folder("sweep/cut", "config.yaml", "format_version: 1\ndata:\n  dir: embedded\n");
    folder("sweep/notes", "readme.txt", "no run");
    folder("empty", "readme.txt", "no run");
    place
});

fn place() -> &'static Path {
    PLACE.path()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(place().join(name)).unwrap()
}

/// Fails unless every element that is opened is closed, in the order of HTML.
fn assert_well_formed(page: &str) {
    const VOID: [&str; 3] = ["meta", "img", "br"];
    let mut open: Vec<&str> = Vec::new();
    let body = &page[page.find("<html").unwrap()..];
    for tag in body.split('<').skip(1) {
        let name = tag.split(|c: char| c.is_whitespace() || c == '>').next().unwrap();
        match name.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "{}", &tag[..tag.len().min(60)]),
            None if VOID.contains(&name) => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_sweep_is_one_page_that_needs_nothing_else() {
    let ran = cqat(place(), &["report", "sweep", "--out", "all.html", "--csv", "all.csv", "--detail", "sweep/a"]).ok();
    let page = read("all.html");
    assert_well_formed(&page);
    for outside in ["http:", "https:", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("name=\"viewport\""));
    for part in [
        "Accuracy against bit operations",
        "Accuracy against energy (model, not measurement)",
        "class=\"front\" d=\"M",
        "Loss on held-out pictures",
        "Activations: saturated",
        "Weights: scale",
        "Confusion by superclass",
        "non-insect invertebrates",
        "data:image/png;base64,iVBORw0KGgo",
        "layer2.0.conv1, 5 bits",
        "layer1.0.relu1, 4 bits",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // Nine convolutions and the classifier, seven activations: one histogram each.
    assert_eq!(page.matches("class=\"bars\"").count(), 10 + 7);
    assert_eq!(page.matches("role=\"img\"").count(), page.matches("<svg class=\"plot\"").count() + 1, "and the map");
    // What cannot be shown is listed, and its name is text.
    assert!(page.contains("&lt;script&gt;") && page.contains("has no config.yaml") && page.contains("format_version"));
    assert!(page.contains("has no section `network`"), "a cut configuration is not filled up with defaults");
    for broken in ["half", "<script>", "newer", "cut"] {
        assert!(ran.out.contains(&format!("not shown: sweep/{broken}: error: ")), "{}", ran.out);
    }
    assert!(!ran.out.contains("notes") && ran.out.contains("sweep/waiting: no epoch has been scored"), "{}", ran.out);
    let row =
        ran.out.lines().find(|l| l.contains("cqat W5A4") && l.contains(" ± ")).unwrap_or_else(|| panic!("{}", ran.out));
    assert!(row.trim_start().starts_with(['1', '2']) && row.contains("cifar100 test"), "{row}");

    let mut csv = csv::Reader::from_path(place().join("all.csv")).unwrap();
    let titles = csv.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 4, "{rows:?}");
    let column = |title: &str| titles.iter().position(|t| t == title).unwrap();
    let cell = |run: &str, title: &str| rows.iter().find(|r| &r[0] == run).unwrap()[column(title)].to_string();
    let metrics = common::lines(&place().join("sweep/a"), "quant", "test");
    assert_eq!(cell("sweep/a", "top1_percent").parse::<f64>().unwrap(), metrics[1]["top1"].as_f64().unwrap());
    assert_eq!((cell("sweep/waiting", "finished"), cell("sweep/float", "method")), ("false".into(), "float".into()));
    let plan = parsed(&cqat(place(), &["plan", "tiny.yaml", "--json"]).ok().out);
    assert_eq!(cell("sweep/b", "bops"), plan["cost"]["bops"].to_string());
}

/// What a sweep recorded of runs that failed stands beside those that did not, with or without a run folder.
#[test]
fn failures_of_a_sweep_are_told() {
    let sweep = place().join("failing");
    std::fs::create_dir_all(sweep.join("state")).unwrap();
    std::fs::create_dir(sweep.join("begun")).unwrap();
    for name in ["config.yaml", "metrics.jsonl", "manifest.json"] {
        std::fs::copy(place().join("sweep/a").join(name), sweep.join("begun").join(name)).unwrap();
    }
    let record = |run: &str, error: &str| {
        let text = format!("{{\"format_version\": 1, \"error\": {error}, \"hint\": \"do so\", \"ended\": 1}}");
        std::fs::write(sweep.join(format!("state/{run}.json")), text).unwrap();
    };
    record("begun", "\"the loss was not finite\"");
    record("gone", "\"no room\"");
    record("fine", "null");
    let ran = cqat(place(), &["report", "failing", "--data", "nowhere", "--out", "failing.html"]).ok();
    for told in
        ["failing/begun: ", "failed: the loss was not finite", "not shown: failing/gone: no room\n  hint: do so"]
    {
        assert!(ran.out.contains(told), "{told}: {}", ran.out);
    }
    assert!(!ran.out.contains("fine"), "{}", ran.out);
    assert!(read("failing.html").contains("no room"));
}

#[test]
fn plots_are_files_that_stand_alone() {
    let report = ["report", "sweep", "--data", "nowhere", "--out", "plots.html", "--force", "--plots", "new/plots"];
    cqat(place(), &report).ok();
    for name in ["bits", "bops", "weight-memory", "energy"] {
        let plot = read(&format!("new/plots/accuracy-{name}.svg"));
        assert_well_formed(&format!("<html>{plot}</html>"));
        assert!(plot.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""), "{plot}");
        assert!(plot.contains("prefers-color-scheme: dark") && plot.contains("Pareto front"));
        for series in [">cqat<", ">float<"] {
            assert!(plot.contains(series), "{series}: bits are no part of its name");
        }
    }
    let again: Vec<&str> = report
        .into_iter()
        .filter(|a| *a != "--force")
        .map(|a| if a == "plots.html" { "unwritten.html" } else { a })
        .collect();
    cqat(place(), &again).fails(2, "accuracy-bits.svg exists", "--force");
    assert!(!place().join("unwritten.html").exists());
}

/// The confusions add up to the pictures, and their diagonal to what is right, within superclasses.
#[test]
fn numbers_of_the_page_are_those_of_the_evaluation() {
    cqat(place(), &["report", "sweep/b", "--out", "b.html"]).ok();
    let page = read("b.html");
    let json = parsed(&cqat(place(), &["eval", "sweep/b", "--json"]).ok().out);
    let top1 = format!("16 pictures, top-1 {:.2} %", json["top1"].as_f64().unwrap());
    assert!(page.contains(&top1), "{top1}");
    let sum = |class: &str| -> u32 {
        let start = format!("<g class=\"{class}\">");
        page.split(&start)
            .skip(1)
            .map(|c| c.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse::<u32>().unwrap())
            .sum()
    };
    assert_eq!(sum("hit") + sum("miss"), 16);
    assert!(f64::from(sum("hit")) * 100.0 / 16.0 >= json["top1"].as_f64().unwrap());
    let mistakes = page.matches("class=\"mistake\"").count();
    assert_eq!(mistakes as f64, 16.0 - json["top1"].as_f64().unwrap() * 16.0 / 100.0, "all of them: there are few");
}

#[test]
fn a_report_without_pictures_or_checkpoint_shows_the_rest() {
    let ran = cqat(place(), &["report", "sweep/a", "--data", "nowhere", "--out", "blind.html"]).ok();
    let page = read("blind.html");
    assert_well_formed(&page);
    assert!(
        page.contains("nowhere does not exist") && page.contains("layer2.0.conv1, 5 bits"),
        "weights need no pictures"
    );
    assert!(ran.err.contains("shown without pictures: error: the data folder nowhere"), "{}", ran.err);
    let bare = place().join("bare");
    std::fs::create_dir(&bare).unwrap();
    for name in ["config.yaml", "metrics.jsonl"] {
        std::fs::copy(place().join("sweep/a").join(name), bare.join(name)).unwrap();
    }
    let torn = std::fs::read_to_string(bare.join("metrics.jsonl")).unwrap() + "{\"kind\":\"epo";
    std::fs::write(bare.join("metrics.jsonl"), torn).unwrap();
    let ran = cqat(place(), &["report", "bare", "--out", "bare.html"]).ok();
    assert!(
        ran.out.contains("1 lines of metrics.jsonl cannot be read") && ran.out.contains("no checkpoint"),
        "{}",
        ran.out
    );
    let page = read("bare.html");
    assert!(
        page.contains("has no checkpoint yet") && page.contains("Activations: saturated"),
        "curves and traces are there"
    );
    // Other pictures than the run's are no basis for its mistakes.
    let ran = cqat(place(), &["report", "sweep/a", "--data", "embedded", "--out", "other.html"]).ok();
    assert!(ran.err.contains("holds other pictures (fashion-mnist-mini)"), "{}", ran.err);
}

#[test]
fn nothing_is_overwritten_and_nothing_is_half_written() {
    std::fs::write(place().join("mine.html"), "mine").unwrap();
    let before = contents(&place().join("sweep"));
    let report = |arguments: &[&str]| cqat(place(), &[&["report", "sweep"], arguments].concat());
    report(&["--out", "mine.html"]).fails(2, "mine.html exists", "--force overwrites it");
    report(&["--out", "new.html", "--csv", "mine.html"]).fails(2, "mine.html exists", "--force");
    report(&["--out", "same", "--csv", "./same"]).fails(2, "name the same file", "of its own");
    report(&["--out", "sweep"]).fails(2, "sweep is a folder, expected the name of a file", "name a file in it");
    report(&["--out", "new.html", "--detail", "sweep/half"]).fails(2, "is none of the runs", "one of them");
    report(&["--out", "nowhere/new.html"]).fails(2, "there is no folder nowhere", "make it");
    assert_eq!(read("mine.html"), "mine");
    assert!(!place().join("new.html").exists());
    cqat(place(), &["report", "empty", "nowhere", "--out", "x"]).fails(
        5,
        "empty is no run folder and holds none",
        "name run folders",
    );
    assert_eq!(contents(&place().join("sweep")), before, "runs are read only");
    report(&["--out", "mine.html", "--force", "--data", "nowhere"]).ok();
    assert!(read("mine.html").starts_with("<!DOCTYPE html>"));
}

#[test]
fn layers_are_ranked_by_what_quantizing_them_costs() {
    let arguments = ["sensitivity", "sweep/a", "--pictures", "12"];
    let run = |more: &[&str]| cqat(place(), &[&arguments[..], more].concat());
    let json = parsed(&run(&["--json", "--csv", "s.csv"]).ok().out);
    let result = &json["sensitivity"];
    let rows = result["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &result["pictures"]), (10 + 7, &12.into()));
    let drops: Vec<f64> = rows.iter().map(|r| r["drop"].as_f64().unwrap()).collect();
    assert!(drops.is_sorted_by(|a, b| a >= b), "{drops:?}");
    // All others stay in float: eight bits of one layer's weights move the loss by next to nothing.
    let rise = |row: &serde_json::Value| row["loss_rise"].as_f64().unwrap().abs();
    let eight: f64 = rows.iter().filter(|row| row["bits"] == 8 && row["tensor"] == "weight").map(rise).sum();
    let all: f64 = rows.iter().map(rise).sum();
    assert!(eight < 0.05 * all, "{eight} of {all}");
    let bits = |layer: &str| rows.iter().find(|r| r["layer"] == layer).unwrap()["bits"].as_u64().unwrap();
    assert_eq!((bits("conv1"), bits("layer1.0.conv1"), bits("layer1.0.relu1")), (8, 5, 4));
    assert!(json["weights"].as_str().unwrap().ends_with("float.safetensors"), "of the float phase: {json}");
    assert!(
        read("s.csv").starts_with("layer,tensor,bits,top1,drop,loss_rise\n") && read("s.csv").lines().count() == 18
    );

    // With fewer bits the loss moves by more.
    let text = run(&["--bits", "2,2"]).ok().out;
    assert!(text.contains("sweep/a/float.safetensors in float: top-1") && text.contains("nothing trained"), "{text}");
    let table: Vec<Vec<&str>> = text.lines().skip(2).map(|l| l.split_whitespace().collect()).collect();
    let table: Vec<&Vec<&str>> = table.iter().filter(|words| words.len() == 9).collect();
    assert!(table.len() == 17 && table.iter().all(|words| words[3] == "2"), "{text}");
    let coarse: f64 = table.iter().map(|words| words[8].parse::<f64>().unwrap().abs()).sum();
    let fine: f64 = rows.iter().map(|r| r["loss_rise"].as_f64().unwrap().abs()).sum();
    assert!(coarse > 2.0 * fine, "{coarse} against {fine}");
    // The network of a float run gets the quantizers of the default method.
    let start = Start::read(&place().join("sweep/float"), None).unwrap();
    assert_eq!((start.config.quant.method, start.tensors().unwrap().len()), (Method::Cqat, 10 + 7));
    run(&["--csv", "s.csv"]).fails(2, "s.csv exists", "--force");
    run(&["--csv", "nowhere/s.csv"]).fails(2, "there is no folder nowhere", "make it");
    run(&["--split", "val"]).fails(2, "held no validation pictures back", "data.validation");
    run(&["--data", "embedded"]).fails(3, "holds other pictures", "--data");
    let ran = Ran::of(on_device(place(), &[&arguments[..], &["--bits", "9,4"]].concat()));
    assert!(ran.code == 2 && ran.err.contains("2 to 8, such as 4,4"), "{}", ran.err);
}
