// LANES multipliers of W_BITS x A_BITS bits and one accumulator: a cycle adds the products of a word of codes and a word of weights.
// Codes are signed where A_SIGNED is 1, else unsigned. Where ODD is 1 a weight is 2 w + 1 of the stored w.
// ACC_BITS: at least A_BITS + W_BITS + 2.
module cqat_mac #(
    parameter LANES = 16,
    parameter A_BITS = 4,
    parameter A_SIGNED = 0,
    parameter W_BITS = 5,
    parameter ODD = 0,
    parameter ACC_BITS = 22
) (
    input wire clk,
    input wire enable, // this word counts
    input wire first,  // the sum begins with it
    input wire [LANES*A_BITS-1:0] a,
    input wire [LANES*W_BITS-1:0] w,
    output reg signed [ACC_BITS-1:0] acc
);
    localparam P = A_BITS + W_BITS + 1;

    // All operands have the product's width; synthesis drops the copies of their signs.
    reg signed [ACC_BITS-1:0] sum;
    reg signed [P-1:0] code;
    reg signed [P-1:0] weight;
    reg signed [P-1:0] product;
    integer lane;

    always @* begin
        sum = first ? {ACC_BITS{1'b0}} : acc;
        for (lane = 0; lane < LANES; lane = lane + 1) begin
            code = {{P-A_BITS{A_SIGNED != 0 && a[lane*A_BITS+A_BITS-1]}}, a[lane*A_BITS +: A_BITS]};
            weight = ODD != 0 ? {{P-W_BITS-1{w[lane*W_BITS+W_BITS-1]}}, w[lane*W_BITS +: W_BITS], 1'b1}
                              : {{P-W_BITS{w[lane*W_BITS+W_BITS-1]}}, w[lane*W_BITS +: W_BITS]};
            product = code * weight;
            sum = sum + {{ACC_BITS-P{product[P-1]}}, product};
        end
    end

    always @(posedge clk)
        if (enable)
            acc <= sum;
endmodule
