// From an accumulator to a code, in a cycle in which enable is 1:
//
//   base = (acc * mul + r * mul_r + bias + 2^(shift - 1)) >>> shift        64 bits; floor, so that the whole rounds half up
//   base = min(max(base, BASE_LO), BASE_HI)                               the 8-bit grid; BASE_LO = 0 is the ReLU
//   q    = min(max((base + half) >> WINDOW_SHIFT, LO), HI)                half = 2^(WINDOW_SHIFT - 1) where WINDOW_ROUND is 1, else 0
//
// r is what is added: a code, an accumulator of a projection, or 0. shift is 1 to 48. With POWERS 1 mul and mul_r are powers of two of
// MUL_BITS 6, and the products shifts: the exponent plus one in the low five bits (0: the factor is 0), and above them 1 where the factor is negative.
module cqat_requantize #(
    parameter ACC_BITS = 22,
    parameter R_BITS = 5,
    parameter MUL_BITS = 32,
    parameter POWERS = 0,
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
    input wire clk,
    input wire enable,
    input wire signed [ACC_BITS-1:0] acc,
    input wire signed [R_BITS-1:0] r,
    input wire signed [MUL_BITS-1:0] mul,
    input wire signed [MUL_BITS-1:0] mul_r,
    input wire signed [BIAS_BITS-1:0] bias,
    input wire [SHIFT_BITS-1:0] shift,
    output reg [Q_BITS-1:0] q
);
    localparam signed [63:0] LEAST = {56'd0, BASE_LO};
    localparam signed [63:0] MOST = {56'd0, BASE_HI};
    localparam signed [9:0] HALF = WINDOW_ROUND != 0 ? (10'sd1 << WINDOW_SHIFT) >>> 1 : 10'sd0;

    wire signed [63:0] acc_64 = {{64-ACC_BITS{acc[ACC_BITS-1]}}, acc};
    wire signed [63:0] r_64 = {{64-R_BITS{r[R_BITS-1]}}, r};
    wire signed [63:0] bias_64 = {{64-BIAS_BITS{bias[BIAS_BITS-1]}}, bias};
    wire signed [63:0] sum;

    generate
        if (POWERS != 0) begin : shifts
            function signed [63:0] shifted(input signed [63:0] value, input [5:0] factor);
                shifted = factor[4:0] == 5'd0 ? 64'sd0 : (factor[5] ? -value : value) <<< (factor[4:0] - 5'd1);
            endfunction
            assign sum = shifted(acc_64, mul) + shifted(r_64, mul_r) + bias_64;
        end else begin : multipliers
            wire signed [63:0] mul_64 = {{64-MUL_BITS{mul[MUL_BITS-1]}}, mul};
            wire signed [63:0] mul_r_64 = {{64-MUL_BITS{mul_r[MUL_BITS-1]}}, mul_r};
            assign sum = acc_64 * mul_64 + r_64 * mul_r_64 + bias_64;
        end
    endgenerate

    // The base code, of which 8 bits are used.
    function [7:0] base(input signed [63:0] value, input [SHIFT_BITS-1:0] places);
        reg signed [63:0] code;
        begin
            code = (value + ((64'sd1 << places) >>> 1)) >>> places;
            base = code < LEAST ? BASE_LO : code > MOST ? BASE_HI : code[7:0];
        end
    endfunction

    // HI has Q_BITS bits. Two bits more than the base code: rounding up may pass 255, and a sign.
    function [Q_BITS-1:0] clip(input [7:0] base_code);
        reg signed [9:0] code;
        begin
            code = ({2'b00, base_code} + HALF) >>> WINDOW_SHIFT;
            clip = code < $signed({2'b00, LO}) ? LO[Q_BITS-1:0] : code > $signed({2'b00, HI}) ? HI[Q_BITS-1:0] : code[Q_BITS-1:0];
        end
    endfunction

    always @(posedge clk)
        if (enable)
            q <= clip(base(sum, shift));
endmodule
