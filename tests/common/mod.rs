//! Helpers of the device tests. There is no way to skip: a machine without an adapter fails them and is told what to
//! install.

use cqat::gpu::{Gpu, OpenOptions};

/// A device on the adapter that `CQAT_TEST_DEVICE` names, else the software adapter.
#[allow(dead_code, reason = "not every test binary opens a device")]
pub fn gpu(checked: bool) -> Gpu {
    let device = std::env::var("CQAT_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    let options = OpenOptions { device: Some(device), memory_mib: None, checked };
    Gpu::open(&options).unwrap_or_else(|e| panic!("{e}\nhint: {}", e.hint_text().unwrap_or("make setup")))
}
