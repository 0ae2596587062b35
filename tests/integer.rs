//! The folded network: against a slow reference, against fake quantization, what it refuses, and its independence of
//! threads and batches.

mod common;
#[path = "integer/device.rs"]
mod device;
#[path = "integer/fake_quant.rs"]
mod fake_quant;
#[path = "integer/fold.rs"]
mod fold;
#[path = "integer/model.rs"]
mod model;
#[path = "integer/refusals.rs"]
mod refusals;
#[path = "integer/running.rs"]
mod running;

use common::random_net::{Case, NORMALISATION, Random};
