//! Memory for scratch tensors: lifetimes from the dispatch lists, then whole-buffer slots by greedy colouring.
//!
//! Slots are whole buffers because one buffer cannot be bound for reading and writing in one dispatch.

use super::{Home, Plan, TensorId};

/// First and last dispatch of one program that touch a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Index of the program.
    pub program: usize,
    /// First dispatch.
    pub first: usize,
    /// Last dispatch, inclusive.
    pub last: usize,
}

impl Lifetime {
    /// Whether two tensors are ever alive at once.
    pub fn overlaps(&self, other: &Lifetime) -> bool {
        self.program == other.program && self.first <= other.last && other.first <= self.last
    }
}

/// Slot of every tensor, and the words of every slot. `items`: words and lifetime.
///
/// Largest first, each into the first slot whose tensors it never meets. Invariants (property-tested): tensors in one slot
/// never overlap in time; a slot is as large as its largest tensor.
pub fn colour(items: &[(usize, Lifetime)]) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(items[i].0), items[i].1.program, items[i].1.first));
    let mut slot_of = vec![0; items.len()];
    let mut slots: Vec<(usize, Vec<Lifetime>)> = Vec::new();
    for i in order {
        let (words, life) = items[i];
        let free = slots.iter().position(|(_, lives)| lives.iter().all(|l| !l.overlaps(&life)));
        let slot = free.unwrap_or_else(|| {
            slots.push((words, Vec::new()));
            slots.len() - 1
        });
        slots[slot].1.push(life);
        slot_of[i] = slot;
    }
    (slot_of, slots.into_iter().map(|(words, _)| words).collect())
}

impl Plan {
    /// Lifetimes of the scratch tensors. A scratch tensor belongs to one program.
    pub fn lifetimes(&self) -> Vec<(TensorId, Lifetime)> {
        let mut lives: Vec<Option<Lifetime>> = vec![None; self.tensors.len()];
        for (program, list) in self.programs.iter().enumerate() {
            for (at, d) in list.dispatches.iter().enumerate() {
                for t in &d.bind {
                    if !matches!(self.tensor(*t).home, Home::Slot(_)) {
                        continue;
                    }
                    match &mut lives[t.0] {
                        Some(life) => {
                            assert_eq!(life.program, program, "{} is used by two programs", self.tensor(*t).name);
                            life.last = at;
                        }
                        life => *life = Some(Lifetime { program, first: at, last: at }),
                    }
                }
            }
        }
        lives.into_iter().enumerate().filter_map(|(i, l)| l.map(|l| (TensorId(i), l))).collect()
    }

    /// Gives every scratch tensor its slot. With `keep_all` each gets one to itself, so that a test can read them after the
    /// step.
    pub fn assign_slots(&mut self, keep_all: bool) {
        let (ids, items): (Vec<TensorId>, Vec<(usize, Lifetime)>) =
            self.lifetimes().into_iter().map(|(t, life)| (t, (self.tensor(t).words, life))).unzip();
        let (slot_of, slots) = match keep_all {
            true => ((0..items.len()).collect(), items.iter().map(|i| i.0).collect()),
            false => colour(&items),
        };
        for (t, slot) in ids.iter().zip(slot_of) {
            self.tensors[t.0].home = Home::Slot(slot);
        }
        self.slots = slots;
    }
}
