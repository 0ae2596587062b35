//! Every kernel and variant on the device against its CPU twin.

mod common;

use std::collections::BTreeSet;

use cqat::kernels::{Caps, REGISTRY};
use cqat::selftest::{cases, check_case, check_kernels, check_step};

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
    let caps = Caps { max_storage_buffers: 9, ..Caps::portable(true, 64) };
    let covered: BTreeSet<&str> = cases::all(&caps).iter().map(|c| c.kernel.name).collect();
    let all: BTreeSet<&str> = REGISTRY.iter().map(|k| k.name).collect();
    assert_eq!(covered, all);
}

#[test]
fn a_device_gets_the_kernels_that_it_can_run() {
    let variants = |caps: &Caps| {
        let products = cases::all(caps).into_iter().filter(|c| c.kernel.name == "conv");
        products.map(|c| (c.variant.name.clone(), c.variant.prelude[0].clone())).collect::<BTreeSet<_>>()
    };
    let lanes = |caps: &Caps| variants(caps).into_iter().filter(|v| v.0 == "lane").map(|v| v.1).collect::<Vec<_>>();
    for subgroup in [4, 8, 16] {
        let caps = Caps { subgroup, ..Caps::portable(true, 64) };
        // Those without shuffles, for subgroups of 16, run on shorter ones too.
        let sizes = if subgroup == 4 { BTreeSet::from([4]) } else { BTreeSet::from([subgroup, 16]) };
        assert_eq!(BTreeSet::from_iter(lanes(&caps)), sizes.iter().map(|n| format!("const LANES = {n}u;")).collect());
    }
    for caps in [Caps { subgroup: 0, ..Caps::portable(true, 64) }, Caps::portable(false, 64)] {
        assert!(lanes(&caps).is_empty() && !variants(&caps).is_empty());
    }
}

#[test]
fn a_kernel_that_the_driver_refuses_is_reported_by_name() {
    let mut case = cases::all(&Caps::portable(false, 64)).into_iter().find(|c| c.kernel.name == "sgd").unwrap();
    case.variant = case.variant.with_const("WG", 64); // defined a second time
    let check = check_case(&common::gpu(false), &case).unwrap();
    assert!(!check.passed() && check.name == "sgd", "{check:?}");
    assert!(check.detail.contains("the driver refuses the kernel"), "{check:?}");
}

#[test]
fn a_training_step_equals_the_cpu_reference() {
    for c in check_step(&common::gpu(false)).unwrap() {
        assert!(c.passed(), "{}: error {:e} above {:e}", c.name, c.error, c.limit);
    }
}
