//! Every kernel and variant on the device against its CPU twin.

mod common;

use std::collections::BTreeSet;

use cqat::kernels::REGISTRY;
use cqat::selftest::{cases, check_kernels, check_step};

#[test]
fn every_kernel_equals_its_twin() {
    for checked in [true, false] {
        let gpu = common::gpu(checked);
        for c in check_kernels(&gpu).unwrap() {
            assert!(
                c.passed(),
                "{} (bounds checks {checked}): error {:e} above {:e}, {}",
                c.name,
                c.error,
                c.limit,
                c.detail
            );
        }
    }
}

#[test]
fn every_kernel_has_cases() {
    let covered: BTreeSet<&str> = cases::all().iter().map(|c| c.kernel.name).collect();
    let all: BTreeSet<&str> = REGISTRY.iter().map(|k| k.name).collect();
    assert_eq!(covered, all);
}

#[test]
fn a_training_step_equals_the_cpu_reference() {
    for c in check_step(&common::gpu(false)).unwrap() {
        assert!(c.passed(), "{}: error {:e} above {:e}", c.name, c.error, c.limit);
    }
}
