//! What `manifest.json` records: where a run was made, and by what.

use serde::Serialize;

use super::now;
use crate::exec::AdapterSummary;
use crate::kernels::select::Choices;

/// Versions of the program and of what it stands on.
#[derive(Debug, Clone, Serialize)]
pub struct Versions {
    /// `cqat` and its version.
    pub program: String,
    /// Version of wgpu.
    pub wgpu: &'static str,
    /// Version of naga, which compiles the shaders.
    pub naga: &'static str,
    /// Operating system and processor, such as `linux x86_64`.
    pub system: String,
}

impl Versions {
    /// Those of this process.
    pub fn now() -> Versions {
        Versions {
            program: format!("cqat {}", crate::VERSION),
            wgpu: locked("wgpu"),
            naga: locked("naga"),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The version of a dependency that the program was built with.
fn locked(package: &str) -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let entry = lock.split("[[package]]").find(|e| e.lines().any(|l| l == format!("name = \"{package}\"")));
    entry.and_then(|e| e.split("version = \"").nth(1)?.split('"').next()).unwrap_or("unknown")
}

/// What `manifest.json` records.
#[derive(Debug, Clone, Serialize)]
pub struct Manifest<'a> {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Versions of the program and of what it stands on.
    #[serde(flatten)]
    pub versions: Versions,
    /// Adapter, driver.
    pub adapter: &'a AdapterSummary,
    /// Name of the data set.
    pub data: &'a str,
    /// Its hash.
    pub data_sha256: &'a str,
    /// Variants of the matrix products by shape, as the device was tuned or by default.
    pub kernels: Choices,
    /// The command line.
    pub command: Vec<String>,
    /// Seconds since 1970.
    pub started: u64,
}

/// What `manifest.json` records of each `--resume`.
#[derive(Debug, Clone, Serialize)]
pub struct Resumed<'a> {
    /// Versions of the program and of what it stands on.
    #[serde(flatten)]
    pub versions: Versions,
    /// Adapter, driver.
    pub adapter: &'a AdapterSummary,
    /// The command line.
    pub command: Vec<String>,
    /// Seconds since 1970.
    pub started: u64,
}

impl<'a> Resumed<'a> {
    /// This process, on `adapter`.
    pub fn now(adapter: &'a AdapterSummary) -> Self {
        Resumed { versions: Versions::now(), adapter, command: std::env::args().collect(), started: now() }
    }
}
