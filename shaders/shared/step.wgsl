// What changes from step to step; written by the host before each submission. Twin: Step in src/kernels.rs.
struct Step {
    seed: u32,
    index: u32,
    ring_slot: u32,
    valid: u32,
    frozen: u32,
    lr: f32,
    ema_decay: f32,
    gradient_decay: f32,
}
