//! Train low-bit image classifiers on any GPU, and hand the exact integers to hardware.
//!
//! A network described as data ([`net`]) is lowered once to a list of dispatches over planned memory ([`plan`]), and that
//! list is replayed for every step by one of two executors: the GPU ([`gpu`]) or the CPU reference ([`cpu`]). Everything
//! that computes is a WGSL shader with a CPU twin ([`kernels`]). See `docs/architecture.md`.

pub mod bench;
pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod cost;
pub mod cpu;
pub mod data;
pub mod digest;
pub mod error;
pub mod evaluate;
pub mod exec;
pub mod export;
pub mod fetch;
pub mod files;
pub mod gpu;
pub mod integer;
pub mod interrupt;
pub mod kernels;
mod locks;
pub mod model;
pub mod net;
pub mod normalisation;
pub mod oracle;
pub mod pictures;
pub mod plan;
pub mod progress;
pub mod quant;
pub mod report;
mod rng;
pub mod run;
pub mod safetensors_io;
pub mod schedule;
pub mod score;
pub mod selftest;
pub mod sensitivity;
pub mod session;
pub mod setup;
pub mod sweep;
pub mod tensorboard;
pub mod tensors;
pub mod terminal;
pub mod train;
pub mod tune;

pub use error::{Error, ErrorKind, Result};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
