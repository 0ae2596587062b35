//! Threads, batches and whole evaluations.

use cqat::config::QuantConfig;
use cqat::data::{EMBEDDED, Split, load};

use super::{Case, Random};

#[test]
fn threads_and_batches_do_not_change_results() {
    let net = Case::new(8, 9, &QuantConfig::default(), 3).folded();
    let bytes = net.picture_bytes();
    let images = Random::new(4).bytes(7 * bytes);
    let want = net.run_on(&images, 1).unwrap();
    assert_eq!(want.len(), 70);
    for threads in [0, 2, 3, 7, 20] {
        assert_eq!(net.run_on(&images, threads).unwrap(), want, "{threads} threads");
    }
    assert_eq!(net.run(&images).unwrap(), want);
    let single: Vec<i32> = images.chunks(bytes).flat_map(|image| net.run(image).unwrap()).collect();
    assert_eq!(single, want);
    assert_eq!(net.run_layers(&images).unwrap().logits, want);
    assert!(net.run(&[]).unwrap().is_empty());
}

#[test]
fn an_evaluation_counts_what_the_logits_say() {
    let net = Case::new(8, 32, &QuantConfig::default(), 5).folded();
    let test = load(EMBEDDED, 0, 1).unwrap().test;
    let split = Split { side: 32, images: test.images[..40 * 3072].to_vec(), labels: test.labels[..40].to_vec() };
    let evaluation = net.evaluate(&split).unwrap();
    let logits = net.numbers(&net.run(&split.images).unwrap());
    let (mut loss, mut top1, mut top5) = (0.0, 0.0, 0.0);
    for (row, label) in logits.chunks(10).zip(&split.labels) {
        let mut order: Vec<usize> = (0..10).collect();
        order.sort_by(|a, b| row[*b].total_cmp(&row[*a])); // stable: of equal logits the first class leads
        let rank = order.iter().position(|c| *c == usize::from(*label)).unwrap();
        top1 += f64::from(u8::from(rank == 0));
        top5 += f64::from(u8::from(rank < 5));
        let sum: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
        loss += sum.ln() - f64::from(row[usize::from(*label)]);
    }
    let t = evaluation.totals;
    assert_eq!((t.top1, t.top5, t.count), (top1, top5, 40.0));
    assert!((t.loss - loss).abs() < 1e-9 * loss);
    assert_eq!(evaluation.predictions.len(), 40);
}

#[test]
fn an_empty_split_has_no_pictures() {
    let net = Case::new(8, 32, &QuantConfig::default(), 5).folded();
    assert_eq!(net.evaluate(&Split::with_capacity(32, 0)).unwrap().totals.count, 0.0);
}

#[test]
fn watched_sums_are_those_of_the_trace() {
    let net = Case::new(10, 8, &QuantConfig::default(), 6).folded();
    let images = Random::new(9).bytes(5 * net.picture_bytes());
    let (trace, (logits, observed)) = (net.run_layers(&images).unwrap(), net.observe(&images).unwrap());
    assert_eq!(logits, trace.logits);
    let all = |sums: &[i32]| (*sums.iter().min().unwrap(), *sums.iter().max().unwrap());
    let layers = trace.layers.iter().flat_map(|l| [&l.accumulators, &l.projection]).filter(|sums| !sums.is_empty());
    let want: Vec<_> = layers.chain([&trace.classifier]).map(|sums| all(sums)).collect();
    assert_eq!(observed.iter().map(|e| (e.least, e.largest)).collect::<Vec<_>>(), want);
    for (bounds, e) in net.accumulator_bounds().iter().zip(&observed) {
        assert!(e.bits() <= bounds.tight && bounds.tight <= bounds.data_free, "{bounds:?}, {e:?}");
    }
}
