// Codes and weights in, codes out: multiply, accumulate, requantize, clip.
//
// SHORTCUT 0: nothing is added. 1: the code s. 2: the accumulator of a projection, which has multipliers of its own.
// acc and r hold the sums in the cycle after their last words, in which the factors must be there and requantize be 1; q follows in the next.
module cqat_datapath #(
    parameter LANES = 16,
    parameter A_BITS = 4,
    parameter A_SIGNED = 0,
    parameter W_BITS = 5,
    parameter ODD = 0,
    parameter ACC_BITS = 22,
    parameter SHORTCUT = 1,
    parameter S_BITS = 4,
    parameter P_LANES = 16,
    parameter P_A_BITS = 4,
    parameter P_A_SIGNED = 0,
    parameter P_W_BITS = 5,
    parameter P_ODD = 0,
    parameter P_ACC_BITS = 22,
    parameter R_BITS = 5, // 1, S_BITS + 1 or P_ACC_BITS
    parameter MUL_BITS = 32,
    parameter POWERS = 0, // 1: factors are powers of two, see cqat_requantize
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
    input wire first,
    input wire enable,
    input wire [LANES*A_BITS-1:0] a,
    input wire [LANES*W_BITS-1:0] w,
    input wire p_enable,
    input wire [P_LANES*P_A_BITS-1:0] p_a,
    input wire [P_LANES*P_W_BITS-1:0] p_w,
    input wire [S_BITS-1:0] s,
    input wire signed [MUL_BITS-1:0] mul,
    input wire signed [MUL_BITS-1:0] mul_r,
    input wire signed [BIAS_BITS-1:0] bias,
    input wire [SHIFT_BITS-1:0] shift,
    input wire requantize,
    output wire signed [ACC_BITS-1:0] acc,
    output wire signed [R_BITS-1:0] r,
    output wire [Q_BITS-1:0] q
);
    cqat_mac #(
        .LANES(LANES), .A_BITS(A_BITS), .A_SIGNED(A_SIGNED), .W_BITS(W_BITS), .ODD(ODD), .ACC_BITS(ACC_BITS)
    ) main (
        .clk(clk), .enable(enable), .first(first), .a(a), .w(w), .acc(acc)
    );

    generate
        if (SHORTCUT == 2) begin : projection
            cqat_mac #(
                .LANES(P_LANES), .A_BITS(P_A_BITS), .A_SIGNED(P_A_SIGNED), .W_BITS(P_W_BITS), .ODD(P_ODD),
                .ACC_BITS(P_ACC_BITS)
            ) mac (
                .clk(clk), .enable(p_enable), .first(first), .a(p_a), .w(p_w), .acc(r)
            );
            wire unused = &{1'b0, s};
        end else if (SHORTCUT == 1) begin : identity
            assign r = {1'b0, s};
            wire unused = &{1'b0, p_enable, p_a, p_w};
        end else begin : none
            assign r = {R_BITS{1'b0}};
            wire unused = &{1'b0, p_enable, p_a, p_w, s};
        end
    endgenerate

    cqat_requantize #(
        .ACC_BITS(ACC_BITS), .R_BITS(R_BITS), .MUL_BITS(MUL_BITS), .POWERS(POWERS), .BIAS_BITS(BIAS_BITS), .SHIFT_BITS(SHIFT_BITS),
        .BASE_LO(BASE_LO), .BASE_HI(BASE_HI), .WINDOW_SHIFT(WINDOW_SHIFT), .WINDOW_ROUND(WINDOW_ROUND),
        .LO(LO), .HI(HI), .Q_BITS(Q_BITS)
    ) factors (
        .clk(clk), .enable(requantize), .acc(acc), .r(r), .mul(mul), .mul_r(mul_r), .bias(bias), .shift(shift), .q(q)
    );
endmodule
