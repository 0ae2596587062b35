//! The part of the training pictures that `data.subset` keeps.

use crate::error::{Error, Result};
use crate::rng;

/// Which of the pictures with these `labels` (N) are kept: `count` of those that are not `held_out` (N), as many of each class as
/// can be. Flags (N).
///
/// The pictures stand in one random order, which depends on N alone. The first of each class in that order are taken, then the
/// second of each class, and so on; of the last round the first in that order.
///
/// # Errors
/// A configuration error: fewer pictures than `count`.
pub(super) fn choose(labels: &[u16], held_out: &[bool], count: usize) -> Result<Vec<bool>> {
    let mut order = rng::permutation(labels.len(), 0, rng::SUBSET_STREAM);
    order.retain(|&i| !held_out[i as usize]);
    if count > order.len() {
        let left = if order.len() < labels.len() { " that validation leaves" } else { "" };
        return Err(Error::config(format!(
            "data.subset is {count}, expected at most the {} training pictures{left}",
            order.len()
        ))
        .hint("remove the key to train on all of them"));
    }
    let mut seen = vec![0_usize; usize::from(u16::MAX) + 1];
    let mut rounds: Vec<(usize, u32)> = Vec::with_capacity(order.len());
    for i in order {
        let round = &mut seen[usize::from(labels[i as usize])];
        rounds.push((*round, i));
        *round += 1;
    }
    rounds.sort_by_key(|(round, _)| *round); // stable: the order within a round stays
    let mut kept = vec![false; labels.len()];
    rounds[..count].iter().for_each(|(_, i)| kept[*i as usize] = true);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::choose;

    fn of_each_class(labels: &[u16], kept: &[bool]) -> [usize; 3] {
        let count = |class| labels.iter().zip(kept).filter(|(l, k)| **l == class && **k).count();
        [0, 1, 2].map(count)
    }

    #[test]
    fn classes_have_equal_shares_until_one_runs_out() {
        let labels: Vec<u16> = [vec![0; 50], vec![1; 3], vec![2; 50]].concat();
        let none = vec![false; labels.len()];
        let kept = |count| of_each_class(&labels, &choose(&labels, &none, count).unwrap());
        assert_eq!(kept(9), [3, 3, 3]);
        assert_eq!(kept(23), [10, 3, 10]);
        assert_eq!(kept(103), [50, 3, 50]);
        assert_eq!(kept(10).iter().sum::<usize>(), 10);
        let e = choose(&labels, &none, 104).unwrap_err();
        assert_eq!(e.to_string(), "data.subset is 104, expected at most the 103 training pictures");
    }

    #[test]
    fn a_larger_subset_holds_the_smaller_one_and_nothing_held_out() {
        let labels: Vec<u16> = (0..300).map(|i| i % 3).collect();
        let held_out: Vec<bool> = (0..300).map(|i| i % 7 == 0).collect();
        let (small, large) = (choose(&labels, &held_out, 60).unwrap(), choose(&labels, &held_out, 90).unwrap());
        assert!((0..300).all(|i| !(large[i] && held_out[i]) && (!small[i] || large[i])));
        assert_eq!((of_each_class(&labels, &small), of_each_class(&labels, &large)), ([20; 3], [30; 3]));
        // Spread over the file, not its beginning.
        assert!(small[200..].iter().filter(|k| **k).count() > 10);
        let e = choose(&labels, &held_out, 258).unwrap_err();
        assert!(e.to_string().ends_with("at most the 257 training pictures that validation leaves"), "{e}");
    }
}
