//! A part of a sweep, for one task of a job array.

use std::str::FromStr;

use super::{Run, Sweep};

/// Shard `index` of `count`, counted from 0 as Slurm and Kubernetes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        match parts {
            Some((index, count)) if index < count => Ok(Shard { index, count }),
            Some((index, count)) => Err(format!(
                "shard {index} of {count}, expected 0 to {}: shards count from 0",
                usize::saturating_sub(count, 1)
            )),
            None => Err("expected I/N, such as 0/8".into()),
        }
    }
}

impl Shard {
    /// The whole.
    pub const ALL: Shard = Shard { index: 0, count: 1 };

    /// Its runs: those of one float start stand beside each other, and each shard takes an equal stretch.
    pub fn of<'s>(&self, sweep: &'s Sweep) -> Vec<&'s Run> {
        let mut runs: Vec<&Run> = sweep.runs.iter().collect();
        let group = |run: &Run| {
            let start = run.start.as_ref().unwrap_or(&run.name);
            sweep.runs.iter().position(|other| other.name == *start || other.start.as_ref() == Some(start))
        };
        runs.sort_by_cached_key(|run| group(run)); // stable
        // Wider than any count that may be asked for.
        let at = |shard: usize| (shard as u128 * runs.len() as u128 / self.count as u128) as usize;
        runs[at(self.index)..at(self.index + 1)].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn shards_are_read() {
        assert_eq!("0/1".parse(), Ok(Shard::ALL));
        assert_eq!("7/8".parse(), Ok(Shard { index: 7, count: 8 }));
        for (text, message) in [("8/8", "count from 0"), ("0/0", "count from 0"), ("-1/2", "I/N"), ("3", "I/N")] {
            assert!(text.parse::<Shard>().unwrap_err().contains(message), "{text}");
        }
    }

    #[test]
    fn together_they_are_the_whole_and_starts_stay_together() {
        let run = |i: usize| Run {
            name: format!("run{i}"),
            config: Config::default(),
            start: Some(format!("float-{}", i % 3)),
        };
        let sweep = Sweep { origin: "s".into(), keys: vec![], runs: (0..9).map(run).collect(), starts: vec![] };
        for count in 1..12 {
            let shards: Vec<Vec<&Run>> = (0..count).map(|index| Shard { index, count }.of(&sweep)).collect();
            let mut names: Vec<&str> = shards.iter().flatten().map(|run| run.name.as_str()).collect();
            names.sort();
            assert_eq!(names, sweep.runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>(), "{count}");
            assert!(shards.iter().all(|s| s.len().abs_diff(9 / count) <= 1));
        }
        let last = Shard { index: usize::MAX - 1, count: usize::MAX };
        assert_eq!(last.of(&sweep).len(), 1);
        let thirds = (0..3).map(|index| Shard { index, count: 3 }.of(&sweep));
        assert!(thirds.into_iter().all(|s| s.iter().all(|run| run.start == s[0].start)));
    }
}
