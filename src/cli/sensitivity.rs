//! `cqat sensitivity`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use serde_json::json;

use super::interrupts::Interrupts;
use super::{Global, train};
use crate::data::spread;
use crate::files::{check_free, write_output};
use crate::progress::Count;
use crate::sensitivity::{Bits, Sensitivity, Start};
use crate::terminal::one_line;
use crate::{Error, ErrorKind, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitName {
    Test,
    Val,
}

#[derive(Debug, Args)]
pub(super) struct SensitivityArgs {
    /// A run folder, or a checkpoint file
    run: PathBuf,
    /// Folder or archive of the data set; default: the run's, else CQAT_DATA
    #[arg(long, value_name = "PLACE")]
    data: Option<PathBuf>,
    /// Bits of weights and activations in every layer, such as 4,4; default: the run's own
    #[arg(long, value_name = "W,A", value_parser = bits)]
    bits: Option<Bits>,
    /// Pictures that score; those that choose bits should not be the ones that judge them
    #[arg(long, value_enum, default_value = "test")]
    split: SplitName,
    /// How many pictures score, evenly spaced in the split
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pictures: u32,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// Also a CSV file
    #[arg(long, value_name = "FILE.csv", value_hint = ValueHint::FilePath)]
    csv: Option<PathBuf>,
    /// Overwrite the CSV file if it exists
    #[arg(long)]
    force: bool,
}

/// `4,8`: bits of weights, bits of activations.
fn bits(text: &str) -> std::result::Result<Bits, String> {
    let parse = |part: &str| part.trim().parse().ok().filter(|b| (2..=8).contains(b));
    let parts: Vec<Option<u32>> = text.split(',').map(parse).collect();
    match parts[..] {
        [Some(weights), Some(activations)] => Ok(Bits { weights, activations }),
        _ => Err("expected bits of weights and of activations, 2 to 8, such as 4,4".into()),
    }
}

impl SensitivityArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        self.csv.as_ref().map_or(Ok(()), |file| check_free(file, self.force))?;
        let start = Start::read(&self.run, self.bits)?;
        let (data, found) = train::load_run_data(&start.config, self.data.as_ref(), global.quiet)?;
        if data.sha256 != start.data_sha256 {
            return Err(Error::data(format!(
                "{found} holds other pictures ({}) than the run was trained on",
                data.name
            ))
            .hint("point --data at the run's data set"));
        }
        train::run_classes(&start.config, &data)?;
        let split = match self.split {
            SplitName::Test => &data.test,
            SplitName::Val => data.val.as_ref().ok_or_else(|| {
                Error::config("this run held no validation pictures back").hint("train with --set data.validation=5000")
            })?,
        };
        let split = split.of(&spread(split.len(), self.pictures as usize));
        let gpu = global.open(Some(&start.config))?;
        let layers = start.tensors()?;
        let _interrupts = Interrupts::take("leaving");
        let float = start.float(&gpu, &split)?;
        let progress = Count::start("tensors", layers.len() as u64, global.quiet);
        let rows =
            layers.into_iter().map(|id| start.row(&gpu, &data, &split, id, &float).inspect(|_| progress.one_more()));
        let result = Sensitivity::new(&float, rows.collect::<Result<_>>()?);
        drop(progress);
        if self.json {
            let (name, adapter) = (&data.name, &gpu.summary.name);
            println!(
                "{:#}",
                json!({ "data": name, "adapter": adapter, "weights": start.source, "sensitivity": result })
            );
        } else {
            print(&result, &data.name, &start.source, &gpu.summary.name);
        }
        // Last: what has been printed is not lost where this fails.
        self.csv.as_ref().map_or(Ok(()), |file| write_output(file, &csv(&result), ErrorKind::Config))
    }
}

fn print(result: &Sensitivity, data: &str, source: &str, adapter: &str) {
    println!(
        "{} in float: top-1 {:.2} %, loss {:.4} over {} pictures of {data} ({adapter})",
        one_line(source),
        result.float_top1,
        result.float_loss,
        result.pictures
    );
    println!(
        "{:4} {:24} {:10} {:>4} {:>9} {:>12} {:>10}",
        "rank", "layer", "tensor", "bits", "top-1", "drop", "loss rise"
    );
    for (i, row) in result.rows.iter().enumerate() {
        println!(
            "{:>4} {:24} {:10} {:>4} {:>7.2} % {:>+5.2} points {:>+10.4}",
            i + 1,
            row.layer,
            row.tensor,
            row.bits,
            row.top1,
            row.drop,
            row.loss_rise
        );
    }
    // A proportion's deviation is at most 50 points over the root of the pictures.
    println!(
        "one tensor at a time, all others in float, nothing trained; over {} pictures drops below {:.1} points mean little",
        result.pictures,
        100.0 / (result.pictures.max(1) as f64).sqrt()
    );
}

fn csv(result: &Sensitivity) -> Vec<u8> {
    let mut out = ::csv::Writer::from_writer(Vec::new());
    let written = result.rows.iter().try_for_each(|row| out.serialize(row));
    written.expect("rows of plain numbers fit into memory");
    out.into_inner().expect("memory needs no flush that could fail")
}
