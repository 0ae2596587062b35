//! Random order that is the same on every machine and in every release: SplitMix64, used by counter.

/// The stream that chooses validation pictures; streams below 2^32 are epochs.
pub const VALIDATION_STREAM: u64 = 1 << 32;
/// The stream that chooses the training pictures of a subset.
pub const SUBSET_STREAM: u64 = (1 << 32) + 1;
/// The first of the streams that choose test pictures, one a class.
pub const TEST_STREAM: u64 = 1 << 33;

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function, a bijection.
///
/// Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Key of a stream: `mix(mix(seed + GAMMA) + stream)`, so different streams of a seed never share a key.
fn stream_key(seed: u64, stream: u64) -> u64 {
    mix(mix(seed.wrapping_add(GAMMA)).wrapping_add(stream))
}

/// Value `counter` of a stream: `mix(key + (counter + 1) GAMMA)`, which is SplitMix64 started at `key`.
pub fn random(key: u64, counter: u64) -> u64 {
    mix(key.wrapping_add(counter.wrapping_add(1).wrapping_mul(GAMMA)))
}

/// The numbers 0..len in order, as evaluation visits them. Panics where `len` is above 2^32.
pub fn in_order(len: usize) -> Vec<u32> {
    assert!(len as u64 <= 1 << 32, "{len} pictures do not fit 32-bit indices");
    (0..len).map(|i| i as u32).collect()
}

/// `count` of the numbers 0..len, or all if they are fewer, in order and evenly spaced.
pub fn spread(len: usize, count: usize) -> Vec<u32> {
    let count = count.min(len);
    (0..count).map(|i| (i * len / count) as u32).collect()
}

/// The numbers 0..len in the order of a Fisher-Yates shuffle that runs from the last place to the first.
///
/// The partner of place `i` is `floor(random * (i + 1) / 2^64)`; its bias is below `len / 2^64`. Panics where `len` is
/// above 2^32.
pub fn permutation(len: usize, seed: u64, stream: u64) -> Vec<u32> {
    let mut order = in_order(len);
    let key = stream_key(seed, stream);
    for (counter, i) in (1..len).rev().enumerate() {
        let wide = u128::from(random(key, counter as u64)) * (i as u128 + 1);
        order.swap(i, (wide >> 64) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // First outputs of the reference C program (prng.di.unimi.it/splitmix64.c) for the state 0.
        let first: Vec<u64> = (0..3).map(|counter| random(0, counter)).collect();
        assert_eq!(first, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }
}
