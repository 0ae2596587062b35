//! The order of pictures in an epoch, batches, and copying a batch together.

use cqat::data::{Batches, PICTURE_BYTES, Split, epoch_permutation, in_order};
use cqat::error::{Error, ErrorKind};

#[track_caller]
fn says(error: Error, message: &str, hint: &str) {
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(message), "message: {error}\nexpected: {message}");
    let found = error.hint_text().expect("every error has a hint");
    assert!(found.contains(hint), "hint: {found}\nexpected: {hint}");
}

#[test]
fn an_epoch_is_a_permutation_that_stays_the_same_for_ever() {
    for len in [0, 1, 2, 13, 1000] {
        let mut order = epoch_permutation(len, 5, 2);
        order.sort();
        assert_eq!(order, in_order(len));
    }
    assert_eq!(epoch_permutation(50_000, 42, 0)[..6], [4184, 49437, 35566, 31557, 9996, 16549]);
    assert_eq!(epoch_permutation(50_000, 42, 1)[..6], [16854, 38204, 22336, 44634, 35105, 46113]);
    let epochs: Vec<Vec<u32>> = (0..3).map(|e| epoch_permutation(1000, 42, e)).collect();
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2] && epochs[0] != epoch_permutation(1000, 43, 0));
}

#[test]
fn every_picture_is_as_likely_in_every_place() {
    // 6 orders of 3, 60,000 draws: 10,000 of each expected, standard deviation 91.
    let mut counts = std::collections::HashMap::new();
    for epoch in 0..60_000 {
        *counts.entry(epoch_permutation(3, 1, epoch)).or_insert(0i32) += 1;
    }
    assert_eq!(counts.len(), 6);
    assert!(counts.values().all(|c| (c - 10_000).abs() < 460), "{counts:?}");
}

#[test]
fn training_drops_the_rest_and_evaluation_keeps_it() {
    let order = in_order(10);
    let training: Vec<&[u32]> = Batches::training(&order, 4).unwrap().collect();
    assert_eq!(training, [[0, 1, 2, 3], [4, 5, 6, 7]]);
    let evaluation = Batches::evaluation(&order, 4).unwrap();
    assert_eq!((evaluation.steps(), evaluation.len()), (3, 3));
    assert_eq!(evaluation.clone().last().unwrap(), [8, 9]);
    assert_eq!(evaluation.map(<[u32]>::len).collect::<Vec<_>>(), [4, 4, 2]);

    let resumed = Batches::training(&order, 3).unwrap().starting_at(1);
    assert_eq!((resumed.steps(), resumed.len()), (3, 2));
    assert_eq!(resumed.collect::<Vec<_>>(), [[3, 4, 5], [6, 7, 8]]);
    assert_eq!(Batches::training(&order, 3).unwrap().starting_at(99).count(), 0);
    assert_eq!(Batches::evaluation(&[], 4).unwrap().count(), 0);

    says(Batches::training(&order, 0).unwrap_err(), "batch size is 0", "set the batch size");
    says(Batches::evaluation(&order, 0).unwrap_err(), "batch size is 0", "set the batch size");
    says(Batches::training(&order, 11).unwrap_err(), "11 pictures cannot be filled: there are 10", "at most 10");
}

#[test]
fn gather_copies_pictures_and_labels_into_the_same_memory() {
    let split = Split {
        side: 32,
        images: (0..200).flat_map(|i| [i; PICTURE_BYTES]).collect(),
        labels: (0..200).map(|i| i % 100).collect(),
    };
    let (mut images, mut labels) = (vec![9; 3], vec![9; 3]);
    split.gather(&[150, 3, 150], &mut images, &mut labels);
    assert_eq!(labels, [50, 3, 50]);
    let bytes = |words: &[u32]| bytemuck::cast_slice::<u32, u8>(words).to_vec();
    assert_eq!(bytes(&images), [[150; PICTURE_BYTES], [3; PICTURE_BYTES], [150; PICTURE_BYTES]].concat());
    let memory = (images.as_ptr(), labels.as_ptr());
    split.gather(&[7, 8], &mut images, &mut labels);
    assert_eq!((images.as_ptr(), labels.as_ptr()), memory);
    assert_eq!(bytes(&images), [[7; PICTURE_BYTES], [8; PICTURE_BYTES]].concat());
    assert_eq!(labels, [7, 8]);
}
