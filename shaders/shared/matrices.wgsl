// A matrix product on matrix units: result = left (M x K) times right (K x N), in tiles of 8 SIDE x 4 SIDE x K_STEPS SIDE. Four
// subgroups of LANES, each with 4 x 2 matrices of SIDE x SIDE; the next tile is in registers while this one is multiplied.
// An operand is one or two terms of f16 (see halves); their product is added in TURNS turns: high by high, then low by high where the
// left operand has a low term, high by low where the right one has. Names are written out because matrices cannot be in arrays.
//
// A kernel that uses this says what is multiplied:
//   begin(wg, lid) -> Task               once, before anything else
//   left_at(step, r, lid) -> LeftHeld    what invocation lid loads of tile `step` of the left operand, r-th, lifted; right_at likewise
//   left_slot(i) -> u32, left_matrix(low, m, k) -> Left, tile_left, LEFT_LOW     how the left tile lies in workgroup memory
//   store(m, n4, v)                      takes four results of row m, if there is such a row
//   finish(m0, n0, parity class, lid)    follows when all are stored
// and calls lift_operands in `begin`.
const TILE_M = 8u * SIDE;
const TILE_N = 4u * SIDE;
const TILE_K = K_STEPS * SIDE;
const M4 = TILE_M / 4u;
const K4 = TILE_K / 4u;
const N4 = TILE_N / 4u;
const THREADS = 4u * LANES;
const LEFT_LOADS = TILE_M * K4 / THREADS;
const RIGHT_LOADS = TILE_K * N4 / THREADS;
const LOW_LEFT_TURN = 1u; // where TURNS > 1 and LEFT_TERMS is 2
const LOW_RIGHT_TURN = LEFT_TERMS;
// Rows are 16 bytes longer than they have to be: neighbours lie in different banks.
const RIGHT_STRIDE = N4 + 2u;
const RIGHT_LOW = TILE_K * RIGHT_STRIDE;
const C_STRIDE = SIDE + 4u;
var<workgroup> tile_right: array<vec4<f16>, RIGHT_TERMS * RIGHT_LOW>;
var<workgroup> result: array<f32, 4u * SIDE * C_STRIDE>;

// The part of the product that a workgroup has: its first row and vec4 of columns, the number of its tiles along K.
struct Task {
    m: u32,
    n4: u32,
    steps: u32,
}

// Of the left and the right operand: what they are multiplied by as they are loaded, and what undoes that.
var<private> lifts: vec2<f32>;
var<private> unlifts: vec2<f32>;

// By the rows of their maxima.
fn lift_operands(left: u32, right: u32) {
    lifts = vec2<f32>(1.0);
    unlifts = vec2<f32>(1.0);
    if (LEFT_LIFTED) {
        lifts.x = lift(maxima[left]);
        unlifts.x = unlift(maxima[left]);
    }
    if (RIGHT_LIFTED) {
        lifts.y = lift(maxima[right]);
        unlifts.y = unlift(maxima[right]);
    }
}

fn right_matrix(low: u32, n: u32, k: u32) -> Right {
    return coopLoadT<Right>(&tile_right[low + k * RIGHT_STRIDE + n / 4u], RIGHT_STRIDE);
}

// Hands on a subgroup's matrix, whose first row is m and first vec4 of columns n4, from workgroup memory.
fn put(subgroup: u32, lane: u32, m: u32, n4: u32) {
    workgroupBarrier();
    for (var i = lane; i < SIDE * SIDE / 4u; i += LANES) {
        let row = i / (SIDE / 4u);
        let q = i % (SIDE / 4u);
        let r = (subgroup * SIDE + row) * C_STRIDE + 4u * q;
        let v = vec4<f32>(result[r], result[r + 1u], result[r + 2u], result[r + 3u]);
        store(m + row, n4 + q, v * unlifts.x * unlifts.y);
    }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let task = begin(wg, lid);
    let wm = subgroup % 2u * 4u * SIDE;
    let wn = subgroup / 2u * 2u * SIDE;
    var c00 = Result();
    var c01 = Result();
    var c10 = Result();
    var c11 = Result();
    var c20 = Result();
    var c21 = Result();
    var c30 = Result();
    var c31 = Result();
    var next_left: array<LeftHeld, LEFT_LOADS>;
    var next_right: array<RightHeld, RIGHT_LOADS>;
    for (var step = 0u; step < task.steps; step++) {
        // The first tile is loaded here, the others while the one before is multiplied.
        if (step == 0u) {
            for (var r = 0u; r < LEFT_LOADS; r++) { // unrolled
                next_left[r] = left_at(0u, r, lid);
            }
            for (var r = 0u; r < RIGHT_LOADS; r++) { // unrolled
                next_right[r] = right_at(0u, r, lid);
            }
        }
        workgroupBarrier();
        for (var r = 0u; r < LEFT_LOADS; r++) { // unrolled
            let o = left_slot(lid + r * THREADS);
            if (LEFT_TERMS == 1u) {
                tile_left[o] = vec4<f16>(next_left[r]);
            } else {
                let v = vec4<f32>(next_left[r]);
                tile_left[o] = vec4<f16>(high(v));
                tile_left[LEFT_LOW + o] = vec4<f16>(v - high(v));
            }
        }
        for (var r = 0u; r < RIGHT_LOADS; r++) { // unrolled
            let i = lid + r * THREADS;
            let o = i / N4 * RIGHT_STRIDE + i % N4;
            if (RIGHT_TERMS == 1u) {
                tile_right[o] = vec4<f16>(next_right[r]);
            } else {
                let v = vec4<f32>(next_right[r]);
                tile_right[o] = vec4<f16>(high(v));
                tile_right[RIGHT_LOW + o] = vec4<f16>(v - high(v));
            }
        }
        workgroupBarrier();
        if (step + 1u < task.steps) {
            for (var r = 0u; r < LEFT_LOADS; r++) { // unrolled
                next_left[r] = left_at(step + 1u, r, lid);
            }
            for (var r = 0u; r < RIGHT_LOADS; r++) { // unrolled
                next_right[r] = right_at(step + 1u, r, lid);
            }
        }
        for (var turn = 0u; turn < TURNS; turn++) { // unrolled
            let left = select(0u, LEFT_LOW, LEFT_TERMS == 2u && turn == LOW_LEFT_TURN);
            let right = select(0u, RIGHT_LOW, RIGHT_TERMS == 2u && turn == LOW_RIGHT_TURN);
            for (var k = 0u; k < K_STEPS; k++) { // unrolled
                let b0 = right_matrix(right, wn, k * SIDE);
                let b1 = right_matrix(right, wn + SIDE, k * SIDE);
                let a0 = left_matrix(left, wm, k * SIDE);
                let a1 = left_matrix(left, wm + SIDE, k * SIDE);
                let a2 = left_matrix(left, wm + 2u * SIDE, k * SIDE);
                let a3 = left_matrix(left, wm + 3u * SIDE, k * SIDE);
                c00 = coopMultiplyAdd(a0, b0, c00);
                c01 = coopMultiplyAdd(a0, b1, c01);
                c10 = coopMultiplyAdd(a1, b0, c10);
                c11 = coopMultiplyAdd(a1, b1, c11);
                c20 = coopMultiplyAdd(a2, b0, c20);
                c21 = coopMultiplyAdd(a2, b1, c21);
                c30 = coopMultiplyAdd(a3, b0, c30);
                c31 = coopMultiplyAdd(a3, b1, c31);
            }
        }
    }
    let at = subgroup * SIDE * C_STRIDE;
    let m = task.m + wm;
    let n = task.n4 + wn / 4u;
    coopStoreT(c00, &result[at], C_STRIDE);
    put(subgroup, lane, m, n);
    coopStoreT(c01, &result[at], C_STRIDE);
    put(subgroup, lane, m, n + SIDE / 4u);
    coopStoreT(c10, &result[at], C_STRIDE);
    put(subgroup, lane, m + SIDE, n);
    coopStoreT(c11, &result[at], C_STRIDE);
    put(subgroup, lane, m + SIDE, n + SIDE / 4u);
    coopStoreT(c20, &result[at], C_STRIDE);
    put(subgroup, lane, m + 2u * SIDE, n);
    coopStoreT(c21, &result[at], C_STRIDE);
    put(subgroup, lane, m + 2u * SIDE, n + SIDE / 4u);
    coopStoreT(c30, &result[at], C_STRIDE);
    put(subgroup, lane, m + 3u * SIDE, n);
    coopStoreT(c31, &result[at], C_STRIDE);
    put(subgroup, lane, m + 3u * SIDE, n + SIDE / 4u);
    finish(task.m, task.n4, wg.z, lid);
}
