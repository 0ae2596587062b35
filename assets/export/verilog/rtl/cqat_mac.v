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

    // The products of two words. All operands have the width of a product; synthesis drops the copies of their signs.
    function signed [ACC_BITS-1:0] dot(input [LANES*A_BITS-1:0] codes, input [LANES*W_BITS-1:0] weights);
        reg signed [P-1:0] product;
        integer i;
        begin
            dot = {ACC_BITS{1'b0}};
            for (i = 0; i < LANES; i = i + 1) begin
                product = $signed({{P-A_BITS{A_SIGNED != 0 && codes[A_BITS-1]}}, codes[A_BITS-1:0]})
                    * $signed(ODD != 0 ? {{P-W_BITS-1{weights[W_BITS-1]}}, weights[W_BITS-1:0], 1'b1}
                                       : {{P-W_BITS{weights[W_BITS-1]}}, weights[W_BITS-1:0]});
                dot = dot + {{ACC_BITS-P{product[P-1]}}, product};
                codes = codes >> A_BITS;
                weights = weights >> W_BITS;
            end
        end
    endfunction

    always @(posedge clk)
        if (enable)
            acc <= (first ? {ACC_BITS{1'b0}} : acc) + dot(a, w);
endmodule
