//! CIFAR-100's 20 superclasses of five classes each (Krizhevsky, 2009). The reader keeps the fine labels alone; which superclass each
//! belongs to is the same in every copy of the set.

/// Names of the superclasses.
pub const NAMES: [&str; 20] = [
    "aquatic mammals",
    "fish",
    "flowers",
    "food containers",
    "fruit and vegetables",
    "household electrical devices",
    "household furniture",
    "insects",
    "large carnivores",
    "large man-made outdoor things",
    "large natural outdoor scenes",
    "large omnivores and herbivores",
    "medium mammals",
    "non-insect invertebrates",
    "people",
    "reptiles",
    "small mammals",
    "trees",
    "vehicles 1",
    "vehicles 2",
];

/// Superclass of each of the 100 classes, in the order of their labels.
pub const OF_CLASS: [u8; 100] = [
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10,
    12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16,
    12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14,
    13,
];

/// The superclasses of a data set, where they are known.
pub fn of(data: &str, classes: usize) -> Option<&'static [u8]> {
    (data == "cifar100" && classes == OF_CLASS.len()).then_some(&OF_CLASS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_superclass_has_five_classes() {
        for superclass in 0..NAMES.len() {
            assert_eq!(OF_CLASS.iter().filter(|c| usize::from(**c) == superclass).count(), 5, "{superclass}");
        }
        // apple, aquarium fish, wolf, woman, worm
        let named = [0, 1, 97, 98, 99].map(|class| NAMES[usize::from(OF_CLASS[class])]);
        let expected = ["fruit and vegetables", "fish", "large carnivores", "people", "non-insect invertebrates"];
        assert_eq!(named, expected);
        assert!(of("cifar100", 100).is_some() && of("cifar10", 10).is_none() && of("cifar100", 99).is_none());
    }
}
