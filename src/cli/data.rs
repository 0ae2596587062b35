//! `cqat data`.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Subcommand};
use serde_json::json;

use super::interrupts::Interrupts;
use super::{DEFAULT_DATA, Global};
use crate::data::{DataSet, Request, Split, load_as};
use crate::digest::published_as;
use crate::fetch::{self, PUBLISHED, fetch};
use crate::files::write_output;
use crate::progress::say;
use crate::terminal::one_line;
use crate::{Error, ErrorKind, Result, pictures};

#[derive(Debug, Subcommand)]
pub(super) enum DataCommand {
    /// Download a data set
    Fetch(FetchArgs),
    /// Describe a data set
    Info(InfoArgs),
}

impl DataCommand {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        match self {
            DataCommand::Fetch(args) => args.run(global),
            DataCommand::Info(args) => args.run(global),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    /// cifar100, cifar10, cifar100-python or cifar10-python
    #[arg(value_parser = PossibleValuesParser::new(PUBLISHED.map(|p| PossibleValue::new(p.name).help(p.about))))]
    name: String,
    /// Folder to put the archive in
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    out: PathBuf,
    /// Address of a folder that holds the archive; may be repeated; default: those in CQAT_MIRRORS, with spaces between them, else the
    /// authors' own
    #[arg(long = "mirror", value_name = "URL")]
    mirrors: Vec<String>,
}

impl FetchArgs {
    fn run(&self, global: &Global) -> Result<()> {
        let published = PUBLISHED.iter().find(|p| p.name == self.name).expect("the parser knows the names");
        let defaults = fetch::Options::default();
        let named = (!self.mirrors.is_empty()).then(|| self.mirrors.clone());
        let mirrors = named.or_else(fetch::mirrors_of_environment).unwrap_or(defaults.mirrors);
        if let Some(wrong) =
            mirrors.iter().find(|m| !["http://", "https://"].iter().any(|scheme| m.starts_with(scheme)))
        {
            return Err(Error::config(format!("the mirror {wrong} is no address, expected http:// or https://"))
                .hint("name the folder that holds the archive, such as https://example.org/data"));
        }
        let _interrupts = Interrupts::take("stopping; what has arrived stays for the next call");
        let path = fetch(published, &self.out, &fetch::Options { mirrors, quiet: global.quiet, ..defaults })?;
        println!("{}", path.display());
        if !global.quiet {
            say!("train on it with --data {}", path.display());
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// A folder or an archive, or embedded; default: CQAT_DATA, else ./data
    place: Option<String>,
    /// Side in pixels to which pictures in class folders are scaled
    #[arg(long, value_name = "PIXELS", default_value_t = 32)]
    size: usize,
    /// Share of pictures in class folders that becomes the test set, where they are not split yet
    #[arg(long, value_name = "FRACTION", default_value_t = 0.2)]
    test_fraction: f32,
    /// Seed of that split, as train.seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write ten training pictures of each class to this PNG
    #[arg(long, value_name = "FILE")]
    contact_sheet: Option<PathBuf>,
    /// Leave out pictures that cannot be decoded
    #[arg(long)]
    skip_broken: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Pictures of a class on a contact sheet.
const COLUMNS: usize = 10;
/// Pixels of a contact sheet, at most.
const MOST_SHEET_BYTES: usize = 256 << 20;

impl InfoArgs {
    fn run(&self, global: &Global) -> Result<()> {
        let environment = std::env::var("CQAT_DATA").ok().filter(|d| !d.is_empty());
        let place = self.place.clone().or(environment).unwrap_or_else(|| DEFAULT_DATA.into());
        let request = Request {
            size: self.size,
            test_fraction: self.test_fraction,
            skip_broken: self.skip_broken,
            seed: self.seed,
            quiet: global.quiet,
            ..Request::of(&place)
        };
        let set = load_as(&request)?;
        let sources =
            set.sources.iter().map(|path| Ok((path.as_path(), published(path)?))).collect::<Result<Vec<_>>>()?;
        if let Some(path) = &self.contact_sheet {
            write_output(path, &contact_sheet(&set)?, ErrorKind::Data)?;
        }
        match self.json {
            true => println!("{:#}", to_json(&set, &sources)),
            false => print(&set, &sources),
        }
        Ok(())
    }
}

fn published(path: &Path) -> Result<Option<&'static str>> {
    published_as(path).map_err(|e| {
        Error::data(format!("cannot read {}", path.display())).hint("check the file's permissions").caused_by(e)
    })
}

/// Pictures of each class.
fn counts(split: &Split, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    split.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    counts
}

fn to_json(set: &DataSet, sources: &[(&Path, Option<&str>)]) -> serde_json::Value {
    let (train, test) = (counts(&set.train, set.classes), counts(&set.test, set.classes));
    let class = |c: usize| json!({ "name": set.class_names[c], "train": train[c], "test": test[c] });
    json!({
        "name": set.name, "size": set.size(), "classes": (0..set.classes).map(class).collect::<Vec<_>>(),
        "train": set.train.len(), "test": set.test.len(), "mean": set.mean, "std": set.std, "sha256": set.sha256,
        "sources": sources.iter().map(|(path, name)| json!({ "path": path.display().to_string(), "published": name })).collect::<Vec<_>>(),
    })
}

fn print(set: &DataSet, sources: &[(&Path, Option<&str>)]) {
    let side = set.size();
    println!(
        "{}: {} training and {} test pictures of {side} x {side} pixels",
        one_line(&set.name),
        set.train.len(),
        set.test.len()
    );
    println!("mean       {:.5} {:.5} {:.5}  (of 0 to 1, training pictures)", set.mean[0], set.mean[1], set.mean[2]);
    println!("deviation  {:.5} {:.5} {:.5}", set.std[0], set.std[1], set.std[2]);
    println!("sha256     {}", set.sha256);
    for (path, name) in sources {
        let what =
            name.map_or("not a published file whose hash is known".into(), |name| format!("the published {name}"));
        println!("file       {}: {what}", one_line(path.display()));
    }
    println!();
    println!("{:>5}  {:>6}  {:>6}  name", "class", "train", "test");
    let (train, test) = (counts(&set.train, set.classes), counts(&set.test, set.classes));
    for (c, name) in set.class_names.iter().enumerate() {
        println!("{c:>5}  {:>6}  {:>6}  {}", train[c], test[c], one_line(name));
    }
}

/// A row of training pictures for each class, as a PNG; of very many classes for the first.
fn contact_sheet(set: &DataSet) -> Result<Vec<u8>> {
    let rows = set.classes.min(MOST_SHEET_BYTES / (COLUMNS * set.train.picture_bytes()));
    if rows < set.classes {
        log::warn!("the contact sheet shows the first {rows} of {} classes", set.classes);
    }
    let blank = vec![0; set.train.picture_bytes()];
    let mut cells: Vec<&[u8]> = vec![&blank; rows * COLUMNS];
    let mut filled = vec![0; rows];
    for (i, &label) in set.train.labels.iter().enumerate() {
        let row = usize::from(label);
        if row < rows && filled[row] < COLUMNS {
            cells[row * COLUMNS + filled[row]] = set.train.image(i);
            filled[row] += 1;
        }
    }
    pictures::contact_sheet(&cells, set.size(), COLUMNS)
}
