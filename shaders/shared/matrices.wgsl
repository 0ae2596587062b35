// What the kernels on matrix units share: four subgroups of LANES, each with 4 x 2 matrices of SIDE x SIDE of a tile of
// 8 SIDE x 4 SIDE x K_STEPS SIDE. An operand is one or two terms of f16 (see halves); their product is added in TURNS turns:
// high by high, then low by high where the left operand has a low term, high by low where the right one has.
const TILE_M = 8u * SIDE;
const TILE_N = 4u * SIDE;
const TILE_K = K_STEPS * SIDE;
const M4 = TILE_M / 4u;
const K4 = TILE_K / 4u;
const N4 = TILE_N / 4u;
const THREADS = 4u * LANES;
const LOW_LEFT_TURN = 1u; // where TURNS > 1 and LEFT_TERMS is 2
const LOW_RIGHT_TURN = LEFT_TERMS;
const C_STRIDE = SIDE + 4u;
var<workgroup> result: array<f32, 4u * SIDE * C_STRIDE>;
