//! `cqat infer`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::Global;
use super::eval::{IntegerArgs, KindName};
use crate::data::Split;
use crate::evaluate::{Kind, Network};
use crate::exec::Device;
use crate::pictures;
use crate::terminal::{explain, one_line};
use crate::{Error, Result};

/// Pictures that are decoded and classified at a time: what is printed does not wait for the last of many.
const AT_ONCE: usize = 256;

#[derive(Debug, Args)]
pub(super) struct InferArgs {
    /// A run folder, a checkpoint file, or a model file
    #[arg(value_name = "RUN|MODEL")]
    run: PathBuf,
    /// PNG or JPEG pictures of any size, or folders of them
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Which arithmetic of a run; default: fake_quant for a quantized one, float for a float one
    #[arg(long, value_enum)]
    kind: Option<KindName>,
    #[command(flatten)]
    integers: IntegerArgs,
    /// How many of the likeliest classes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    /// With the logits of every picture; those of a model and of --kind folded as integers, of which 2^fraction_bits are 1
    #[arg(long, requires = "json")]
    logits: bool,
}

impl InferArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let subject = self.integers.subject(&self.run)?;
        let kind = subject.kind(self.kind.map(Kind::from))?;
        let gpu = self.integers.device(kind, global, subject.config())?;
        let paths = self.images.iter().map(|path| files(path)).collect::<Result<Vec<_>>>()?.concat();
        let names = subject.class_names();
        let side = subject.side();
        let device = gpu.as_ref().map(|g| g as &dyn Device);
        let at_once = paths.len().min(AT_ONCE);
        let failures = subject
            .with_network(kind, names.len(), device, at_once, |network| self.classify(network, &paths, side, &names))?;
        match failures {
            0 => Ok(()),
            n => Err(Error::data(format!("{n} of {} pictures could not be read", paths.len()))
                .hint("they are named above; the others were classified")),
        }
    }

    /// Prints the likeliest classes of every picture; returns how many of several could not be read.
    fn classify(&self, network: &mut Network, paths: &[PathBuf], side: usize, names: &[String]) -> Result<usize> {
        let (mut answers, mut failures) = (Vec::new(), 0);
        for some in paths.chunks(AT_ONCE) {
            let mut split = Split::with_capacity(side, some.len());
            let mut readable = Vec::new();
            for (path, picture) in some.iter().zip(pictures::read_all(some, side, || ())) {
                match picture {
                    Ok(picture) => {
                        split.images.extend(picture);
                        split.labels.push(0);
                        readable.push(path);
                    }
                    Err(e) if paths.len() == 1 => return Err(e),
                    Err(e) => {
                        failures += 1;
                        let _ = std::io::stderr().write_all(explain(&e).as_bytes());
                    }
                }
            }
            if readable.is_empty() {
                continue;
            }
            let logits = network.logits(&split)?;
            let classes = names.len();
            for (k, (path, row)) in readable.into_iter().zip(logits.numbers.chunks_exact(classes)).enumerate() {
                let top = likeliest(row, self.top as usize);
                if !self.json {
                    println!("{}", one_line(path.display()));
                    top.iter().for_each(|(class, p)| println!("  {:5.1} %  {}", 100.0 * p, one_line(&names[*class])));
                    continue;
                }
                let top = top.iter().map(|(c, p)| json!({ "class": c, "name": names[*c], "probability": p }));
                let mut answer = json!({ "image": path.display().to_string(), "top": top.collect::<Vec<_>>() });
                match &logits.integers {
                    Some(of) if self.logits => {
                        answer["logits"] = json!(of.integers[k * classes..][..classes]);
                        answer["fraction_bits"] = json!(of.fraction_bits);
                    }
                    None if self.logits => answer["logits"] = json!(row),
                    _ => {}
                }
                answers.push(answer);
            }
        }
        if self.json {
            println!("{}", json!(answers));
        }
        Ok(failures)
    }
}

/// The pictures that a path stands for: itself, or those in a folder and its sub-folders, in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let found = pictures::in_folder(path)?;
    if found.is_empty() {
        return Err(Error::data(format!("{} holds no PNG or JPEG picture", path.display())).hint("check the path"));
    }
    Ok(found)
}

/// The `count` likeliest classes with their probabilities; of equal ones the first leads.
fn likeliest(logits: &[f32], count: usize) -> Vec<(usize, f64)> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|l| f64::from(l - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order.into_iter().take(count).map(|class| (class, weights[class] / sum)).collect()
}

#[cfg(test)]
mod tests {
    use super::likeliest;

    #[test]
    fn probabilities_are_those_of_softmax() {
        let top = likeliest(&[1.0, 3.0, 3.0, -80.0], 3);
        let e = |x: f64| x.exp() / (1f64.exp() + 2.0 * 3f64.exp() + (-80f64).exp());
        assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 2, 0]);
        assert!(top.iter().zip([3.0, 3.0, 1.0]).all(|(t, x)| (t.1 - e(x)).abs() < 1e-9), "{top:?}");
    }
}
