// One convolution layer: goes through rows, columns and output channels, and for each through the kernel and the groups of LANES
// input channels. Padding is KERNEL / 2 of code 0. A projection is a 1x1 convolution and runs beside the main one.
//
// Every memory answers in the cycle after its address. Words of codes hold LANES channels of a pixel, words of weights the same
// channels of a tap, lane 0 in the lowest bits. sum_valid: acc and r are those of the next output; code_valid: so is q.
module cqat_conv #(
    parameter ADDRESS_BITS = 16, // of the longest memory, and one more than any side
    parameter [ADDRESS_BITS-1:0] IN_H = 32,
    parameter [ADDRESS_BITS-1:0] IN_W = 32,
    parameter [ADDRESS_BITS-1:0] GROUPS = 4, // words of a pixel
    parameter [ADDRESS_BITS-1:0] OUT_H = 32,
    parameter [ADDRESS_BITS-1:0] OUT_W = 32,
    parameter [ADDRESS_BITS-1:0] OUT_C = 64,
    parameter [ADDRESS_BITS-1:0] KERNEL = 3,
    parameter [ADDRESS_BITS-1:0] STRIDE = 1,
    parameter LANES = 16,
    parameter A_BITS = 4,
    parameter A_SIGNED = 0,
    parameter W_BITS = 5,
    parameter ODD = 0,
    parameter ACC_BITS = 22,
    parameter SHORTCUT = 1, // 0: none, 1: identity, 2: projection
    parameter S_LANES = 16,
    parameter S_BITS = 4,
    parameter [ADDRESS_BITS-1:0] P_IN_W = 32,
    parameter [ADDRESS_BITS-1:0] P_GROUPS = 4,
    parameter [ADDRESS_BITS-1:0] P_STRIDE = 1,
    parameter P_LANES = 16,
    parameter P_A_BITS = 4,
    parameter P_A_SIGNED = 0,
    parameter P_W_BITS = 5,
    parameter P_ODD = 0,
    parameter P_ACC_BITS = 22,
    parameter R_BITS = 5,
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
    input wire reset,
    input wire start,
    output reg busy,
    output wire [ADDRESS_BITS-1:0] a_address,
    input wire [LANES*A_BITS-1:0] a,
    output wire [ADDRESS_BITS-1:0] w_address,
    input wire [LANES*W_BITS-1:0] w,
    output wire [ADDRESS_BITS-1:0] p_a_address,
    input wire [P_LANES*P_A_BITS-1:0] p_a,
    output wire [ADDRESS_BITS-1:0] p_w_address,
    input wire [P_LANES*P_W_BITS-1:0] p_w,
    output reg [ADDRESS_BITS-1:0] s_address,
    input wire [S_LANES*S_BITS-1:0] s,
    output reg [ADDRESS_BITS-1:0] channel, // address of mul, mul_r, bias and shift
    input wire signed [MUL_BITS-1:0] mul,
    input wire signed [MUL_BITS-1:0] mul_r,
    input wire signed [BIAS_BITS-1:0] bias,
    input wire [SHIFT_BITS-1:0] shift,
    output reg sum_valid,
    output wire signed [ACC_BITS-1:0] acc,
    output wire signed [R_BITS-1:0] r,
    output reg code_valid,
    output wire [Q_BITS-1:0] q
);
    localparam [ADDRESS_BITS-1:0] ZERO = 0;
    localparam [ADDRESS_BITS-1:0] ONE = 1;
    localparam [ADDRESS_BITS-1:0] PAD = KERNEL >> 1;
    localparam [ADDRESS_BITS-1:0] TAPS = KERNEL * KERNEL * GROUPS;
    localparam [ADDRESS_BITS-1:0] STEPS = SHORTCUT == 2 && P_GROUPS > TAPS ? P_GROUPS : TAPS;

    // Addresses: the loops, outermost first, and running addresses of what is read in order.
    reg [ADDRESS_BITS-1:0] out_y, out_x, out_c, step, kernel_y, kernel_x, group;
    reg [ADDRESS_BITS-1:0] weight, p_weight;

    wire in_main = step < TAPS;
    wire in_projection = SHORTCUT == 2 && step < P_GROUPS;
    wire last_step = step == STEPS - ONE;
    wire last_channel = out_c == OUT_C - ONE;
    wire last_column = out_x == OUT_W - ONE;
    wire last_row = out_y == OUT_H - ONE;
    wire last_group = group == GROUPS - ONE;
    wire last_kernel_x = kernel_x == KERNEL - ONE;

    // Left of and above the picture these pass below 0, which is far beyond its sides.
    wire [ADDRESS_BITS-1:0] in_y = out_y * STRIDE + kernel_y - PAD;
    wire [ADDRESS_BITS-1:0] in_x = out_x * STRIDE + kernel_x - PAD;
    wire in_picture = in_y < IN_H && in_x < IN_W;

    assign a_address = in_picture ? (in_y * IN_W + in_x) * GROUPS + group : ZERO;
    assign w_address = weight;
    assign p_a_address = (out_y * P_STRIDE * P_IN_W + out_x * P_STRIDE) * P_GROUPS + (in_projection ? step : ZERO);
    assign p_w_address = p_weight;

    always @(posedge clk)
        if (reset || start) begin
            busy <= start && !reset;
            {out_y, out_x, out_c, step, kernel_y, kernel_x, group, weight, p_weight} <= {9*ADDRESS_BITS{1'b0}};
        end else if (busy) begin
            step <= last_step ? ZERO : step + ONE;
            if (in_main) begin
                group <= last_group ? ZERO : group + ONE;
                weight <= weight + ONE;
                if (last_group) begin
                    kernel_x <= last_kernel_x ? ZERO : kernel_x + ONE;
                    if (last_kernel_x)
                        kernel_y <= kernel_y == KERNEL - ONE ? ZERO : kernel_y + ONE;
                end
            end
            if (in_projection)
                p_weight <= p_weight + ONE;
            if (last_step) begin
                out_c <= last_channel ? ZERO : out_c + ONE;
                if (last_channel) begin
                    weight <= ZERO;
                    p_weight <= ZERO;
                    out_x <= last_column ? ZERO : out_x + ONE;
                    if (last_column) begin
                        out_y <= out_y + ONE;
                        if (last_row)
                            busy <= 1'b0;
                    end
                end
            end
        end

    // The words have come: multiply and accumulate, and ask for the factors and the code that is added.
    reg enable, p_enable, first, last, padded;

    always @(posedge clk) begin
        enable <= busy && in_main;
        p_enable <= busy && in_projection;
        first <= step == ZERO;
        last <= busy && last_step && !reset;
        padded <= !in_picture;
        channel <= out_c;
        sum_valid <= last && !reset;
        code_valid <= sum_valid && !reset;
    end

    localparam S_LANE_BITS = S_LANES > 1 ? $clog2(S_LANES) : 1;
    localparam [S_LANE_BITS-1:0] LAST_LANE = S_LANES[S_LANE_BITS-1:0] - 1'b1;
    reg [S_LANE_BITS-1:0] s_lane, s_lane_next;

    // The codes that are added lie in the order of the outputs, S_LANES to a word, and each pixel begins at a word.
    always @(posedge clk)
        if (reset || start) begin
            s_address <= ZERO;
            s_lane_next <= {S_LANE_BITS{1'b0}};
            s_lane <= {S_LANE_BITS{1'b0}};
        end else if (last) begin
            s_lane <= s_lane_next;
            if (s_lane_next == LAST_LANE || channel == OUT_C - ONE) begin
                s_lane_next <= {S_LANE_BITS{1'b0}};
                s_address <= s_address + ONE;
            end else
                s_lane_next <= s_lane_next + 1'b1;
        end

    cqat_datapath #(
        .LANES(LANES), .A_BITS(A_BITS), .A_SIGNED(A_SIGNED), .W_BITS(W_BITS), .ODD(ODD), .ACC_BITS(ACC_BITS),
        .SHORTCUT(SHORTCUT), .S_BITS(S_BITS), .P_LANES(P_LANES), .P_A_BITS(P_A_BITS), .P_A_SIGNED(P_A_SIGNED),
        .P_W_BITS(P_W_BITS), .P_ODD(P_ODD), .P_ACC_BITS(P_ACC_BITS), .R_BITS(R_BITS), .MUL_BITS(MUL_BITS), .POWERS(POWERS),
        .BIAS_BITS(BIAS_BITS), .SHIFT_BITS(SHIFT_BITS), .BASE_LO(BASE_LO), .BASE_HI(BASE_HI),
        .WINDOW_SHIFT(WINDOW_SHIFT), .WINDOW_ROUND(WINDOW_ROUND), .LO(LO), .HI(HI), .Q_BITS(Q_BITS)
    ) datapath (
        .clk(clk), .first(first), .enable(enable), .a(padded ? {LANES*A_BITS{1'b0}} : a), .w(w),
        .p_enable(p_enable), .p_a(p_a), .p_w(p_w), .s(s[s_lane*S_BITS +: S_BITS]), .mul(mul), .mul_r(mul_r), .bias(bias), .shift(shift),
        .requantize(sum_valid), .acc(acc), .r(r), .q(q)
    );
endmodule
