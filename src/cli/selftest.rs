//! `cqat selftest`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Global;
use crate::check::Check;
use crate::gpu::{Gpu, GpuProgram, OpenOptions};
use crate::kernels::select::KernelFamily;
use crate::oracle::Oracle;
use crate::selftest::{check_kernels, check_step};
use crate::{Error, Result};

/// `println!` that goes on where nobody reads: the exit code is the verdict.
macro_rules! tell {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

#[derive(Debug, Args)]
pub(super) struct SelftestArgs {
    /// Compare with a reference dump instead; may be repeated
    #[arg(long, value_name = "FILE", num_args = 1..)]
    oracle: Vec<PathBuf>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl SelftestArgs {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        // With matrix units wherever there are some: whether they can be trusted is what is asked.
        let gpu = Gpu::open(&OpenOptions { device: global.device.clone(), ..OpenOptions::default() })?;
        let mut lines = Vec::new();
        let mut failed = 0;
        let mut note = |check: Check| {
            let passed = check.passed();
            let Check { name, error, limit, detail } = check;
            failed += usize::from(!passed);
            if !self.json {
                let verdict = if passed { "ok  " } else { "FAIL" };
                tell!("{verdict}  {name:32} error {error:.2e}  limit {limit:.0e}  {detail}");
            }
            lines.push(json!({ "name": name, "error": error, "limit": limit, "passed": passed, "detail": detail }));
        };
        if self.oracle.is_empty() {
            check_kernels(&gpu)?.into_iter().for_each(&mut note);
            check_step(&gpu)?.into_iter().for_each(&mut note);
        }
        for file in &self.oracle {
            let oracle = Oracle::read(file)?;
            if !self.json {
                tell!("{}: {}", file.display(), oracle.describe());
            }
            let lowered = oracle.lower(&gpu.caps, KernelFamily::of(&gpu.caps))?;
            let mut exec = GpuProgram::new(&gpu, &lowered.plan)?;
            oracle.run(&lowered, &mut exec)?.into_iter().for_each(&mut note);
        }
        if self.json {
            tell!("{}", serde_json::Value::from(lines));
        }
        if failed > 0 {
            let hint = if self.oracle.is_empty() {
                "results of this device and driver cannot be trusted; update the driver, or use another adapter"
            } else {
                "where `cqat selftest` without a file passes, look at the dump: a ReLU input or a rounding edge within \
                 float32's error of its threshold moves the following steps on any device; take another draw"
            };
            return Err(Error::device(format!(
                "{failed} checks failed on {} ({} {})",
                gpu.summary.name, gpu.summary.driver, gpu.summary.driver_info
            ))
            .hint(hint));
        }
        if !self.json {
            tell!("all checks passed on {} ({} {})", gpu.summary.name, gpu.summary.driver, gpu.summary.driver_info);
        }
        Ok(())
    }
}
