// From an accumulator to a code, without a clock:
//
//   base = (acc * mul + r * mul_r + bias + 2^(shift - 1)) >>> shift        64 bits; floor, so that the whole rounds half up
//   base = min(max(base, BASE_LO), BASE_HI)                               the 8-bit grid; BASE_LO = 0 is the ReLU
//   q    = min(max((base + half) >> WINDOW_SHIFT, LO), HI)                half = 2^(WINDOW_SHIFT - 1) where WINDOW_ROUND is 1, else 0
//
// r is what is added: a code, an accumulator of a projection, or 0. shift is 1 to 48.
module cqat_requantize #(
    parameter ACC_BITS = 22,
    parameter R_BITS = 5,
    parameter MUL_BITS = 32,
    parameter BIAS_BITS = 55,
    parameter SHIFT_BITS = 6,
    parameter [7:0] BASE_LO = 0,
    parameter [7:0] BASE_HI = 255,
    parameter [2:0] WINDOW_SHIFT = 0,
    parameter WINDOW_ROUND = 0,
    parameter [7:0] LO = 0,
    parameter [7:0] HI = 15,
    parameter Q_BITS = 4
) (
    input wire signed [ACC_BITS-1:0] acc,
    input wire signed [R_BITS-1:0] r,
    input wire signed [MUL_BITS-1:0] mul,
    input wire signed [MUL_BITS-1:0] mul_r,
    input wire signed [BIAS_BITS-1:0] bias,
    input wire [SHIFT_BITS-1:0] shift,
    output wire [Q_BITS-1:0] q
);
    wire signed [63:0] acc_64 = {{64-ACC_BITS{acc[ACC_BITS-1]}}, acc};
    wire signed [63:0] r_64 = {{64-R_BITS{r[R_BITS-1]}}, r};
    wire signed [63:0] mul_64 = {{64-MUL_BITS{mul[MUL_BITS-1]}}, mul};
    wire signed [63:0] mul_r_64 = {{64-MUL_BITS{mul_r[MUL_BITS-1]}}, mul_r};
    wire signed [63:0] bias_64 = {{64-BIAS_BITS{bias[BIAS_BITS-1]}}, bias};
    wire signed [63:0] half_64 = (64'sd1 << shift) >>> 1;

    wire signed [63:0] sum = acc_64 * mul_64 + r_64 * mul_r_64 + bias_64 + half_64;
    wire signed [63:0] base = sum >>> shift;

    localparam signed [63:0] LEAST = {56'd0, BASE_LO};
    localparam signed [63:0] MOST = {56'd0, BASE_HI};
    wire [7:0] clipped = base < LEAST ? BASE_LO : base > MOST ? BASE_HI : base[7:0];

    // One bit more: rounding up may pass 255.
    localparam [8:0] HALF = WINDOW_ROUND != 0 ? (9'd1 << WINDOW_SHIFT) >> 1 : 9'd0;
    wire [8:0] window = ({1'b0, clipped} + HALF) >> WINDOW_SHIFT;
    wire [8:0] code = window < {1'b0, LO} ? {1'b0, LO} : window > {1'b0, HI} ? {1'b0, HI} : window;
    assign q = code[Q_BITS-1:0];

    // HI has Q_BITS bits.
    wire unused = &{1'b0, code[8:Q_BITS]};
endmodule
