//! What a terminal shows, and what a file gets: colours, progress, silence.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Ran, command, cqat, on_device, workplace};

/// The commands whose output may be styled: help, both kinds of error, a warning.
const STYLED: [&[&str]; 4] = [&["--help"], &["train", "--out"], &["train", "nowhere"], &["doctor"]];

#[test]
fn no_colours_in_a_file() {
    let place = workplace();
    for arguments in STYLED {
        let ran = Ran::of(command(place.path(), arguments));
        assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{arguments:?}: {}{}", ran.out, ran.err);
    }
    let ran = cqat(
        place.path(),
        &[
            "train",
            "tiny.yaml",
            "--out",
            "run",
            "--set",
            "quant.activations={range_factor: 0.1, scale_with_bits: false}",
        ],
    );
    assert!(ran.err.contains("[WARN") && !ran.err.contains('\u{1b}'), "{}", ran.err);
}

/// `arguments` on a terminal of 100 columns, with these variables.
#[cfg(target_os = "linux")]
fn on_a_terminal(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let quoted: Vec<String> = arguments.iter().map(|a| format!("'{a}'")).collect();
    let inner = format!("stty cols 100; '{}' {}", env!("CARGO_BIN_EXE_cqat"), quoted.join(" "));
    let mut script = Command::new("script");
    script.current_dir(folder).args(["-qec", &inner, "/dev/null"]).env("TERM", "xterm-256color").env_remove("NO_COLOR");
    // On a continuous integration server (CI is set) clap styles its help on any terminal, a dumb one too.
    for unset in ["CI", "CLICOLOR", "CLICOLOR_FORCE", "RUST_LOG", "CQAT_DATA"] {
        script.env_remove(unset);
    }
    script.envs(variables.iter().copied());
    String::from_utf8(script.output().unwrap().stdout).unwrap()
}

/// Whether a text sets colours or weights; a progress bar that moves the cursor does not.
#[cfg(target_os = "linux")]
fn is_styled(text: &str) -> bool {
    text.split("\u{1b}[").skip(1).any(|rest| {
        let code = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        code.starts_with('m')
    })
}

#[cfg(target_os = "linux")]
#[test]
fn colours_on_a_terminal_unless_they_are_unwanted() {
    let place = workplace();
    assert!(is_styled(&on_a_terminal(place.path(), &["--help"], &[])));
    for variables in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        for arguments in STYLED {
            let shown = on_a_terminal(place.path(), arguments, &[variables]);
            assert!(!shown.is_empty() && !is_styled(&shown), "{variables:?} {arguments:?}: {shown:?}");
        }
    }
    let device = common::device();
    let sets = ["--set", "quant.activations={range_factor: 0.1, scale_with_bits: false}", "--device", &device];
    let train = |out| [&["train", "tiny.yaml", "--out", out], &sets[..]].concat();
    let shown = on_a_terminal(place.path(), &train("plain"), &[("NO_COLOR", "1")]);
    assert!(shown.contains("WARN") && shown.contains("images/s") && !is_styled(&shown), "{shown:?}");
    let shown = on_a_terminal(place.path(), &train("coloured"), &[]);
    assert!(shown.contains("WARN") && is_styled(&shown), "{shown:?}");
}

/// `--quiet` leaves results, warnings and errors.
#[test]
fn quiet_says_nothing_but_results_and_warnings() {
    let place = workplace();
    let quiet = |arguments: &[&str]| cqat(place.path(), &[arguments, &["--quiet"]].concat());
    let ran =
        quiet(&["train", "tiny.yaml", "--out", "run", "--stop-after", "3", "--set", "train.heartbeat_seconds=0.001"])
            .ok();
    assert_eq!(ran.out, "run folder: run\n");
    assert!(ran.err.lines().all(|line| line.starts_with("[WARN")), "{}", ran.err);
    let ran = quiet(&["train", "--resume", "run"]).ok();
    assert_eq!(ran.out, "run folder: run\n");
    assert!(ran.err.lines().all(|line| line.starts_with("[WARN")), "{}", ran.err);
    let ran = quiet(&["train", "--resume", "run"]).ok();
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("run folder: run\n", ""));
    let ran = quiet(&["eval", "run"]).ok();
    assert!(ran.out.starts_with("cifar100 fake_quant: top-1 ") && ran.err.is_empty(), "{}{}", ran.out, ran.err);
    quiet(&["eval", "nowhere"]).fails(5, "nowhere: cannot be read", "check the path");
    // Without it there is something to see.
    let mut loud = on_device(place.path(), &["train", "tiny.yaml", "--out", "loud"]);
    loud.args(["--set", "train.heartbeat_seconds=0.001"]);
    let ran = Ran::of(loud).ok();
    let begins = |start: &str| ran.err.lines().any(|line| line.starts_with(start));
    assert!(begins("cifar100 on ") && begins("float 1/2  step ") && begins("quant 2/2  loss "), "{}", ran.err);
}
