// Runs one layer on the golden vectors of one picture (+picture=N) and compares every accumulator and every code. layer.vh says which
// layer: its folder is given with -I.
`timescale 1ns / 1ns
module tb_conv;
`include "layer.vh"

    localparam OUTPUTS = OUT_H * OUT_W * OUT_C;

    reg clk = 1'b0;
    reg reset = 1'b1;
    reg start = 1'b0;
    /* verilator lint_off BLKSEQ */
    always #5 clk = !clk;
    /* verilator lint_on BLKSEQ */

    // Memories, which answer in the cycle after the address. Most are shorter than the address can say.
    /* verilator lint_off WIDTH */
    /* verilator lint_off UNUSED */
    reg [LANES*A_BITS-1:0] a_memory[0:A_WORDS-1];
    reg [LANES*W_BITS-1:0] w_memory[0:W_WORDS-1];
    reg [P_LANES*P_A_BITS-1:0] p_a_memory[0:P_A_WORDS-1];
    reg [P_LANES*P_W_BITS-1:0] p_w_memory[0:P_W_WORDS-1];
    reg [S_LANES*S_BITS-1:0] s_memory[0:S_WORDS-1];
    reg [MUL_BITS-1:0] mul_memory[0:OUT_C-1];
    reg [MUL_BITS-1:0] mul_r_memory[0:OUT_C-1];
    reg [BIAS_BITS-1:0] bias_memory[0:OUT_C-1];
    reg [SHIFT_BITS-1:0] shift_memory[0:OUT_C-1];

    wire [ADDRESS_BITS-1:0] a_address, w_address, p_a_address, p_w_address, s_address, channel;
    reg [LANES*A_BITS-1:0] a;
    reg [LANES*W_BITS-1:0] w;
    reg [P_LANES*P_A_BITS-1:0] p_a;
    reg [P_LANES*P_W_BITS-1:0] p_w;
    reg [S_LANES*S_BITS-1:0] s;
    reg [MUL_BITS-1:0] mul, mul_r;
    reg [BIAS_BITS-1:0] bias;
    reg [SHIFT_BITS-1:0] shift;

    always @(posedge clk) begin
        a <= a_memory[a_address];
        w <= w_memory[w_address];
        mul <= mul_memory[channel];
        bias <= bias_memory[channel];
        shift <= shift_memory[channel];
        if (SHORTCUT == 1)
            s <= s_memory[s_address];
        if (SHORTCUT == 2) begin
            p_a <= p_a_memory[p_a_address];
            p_w <= p_w_memory[p_w_address];
        end
        mul_r <= SHORTCUT != 0 ? mul_r_memory[channel] : {MUL_BITS{1'b0}};
    end

    /* verilator lint_on WIDTH */
    /* verilator lint_on UNUSED */

    wire busy, sum_valid, code_valid;
    wire signed [ACC_BITS-1:0] acc;
    wire signed [R_BITS-1:0] r;
    wire [Q_BITS-1:0] q;

    cqat_conv #(
        .ADDRESS_BITS(ADDRESS_BITS), .IN_H(IN_H), .IN_W(IN_W), .GROUPS(GROUPS), .OUT_H(OUT_H), .OUT_W(OUT_W),
        .OUT_C(OUT_C), .KERNEL(KERNEL), .STRIDE(STRIDE), .LANES(LANES), .A_BITS(A_BITS), .A_SIGNED(A_SIGNED),
        .W_BITS(W_BITS), .ODD(ODD), .ACC_BITS(ACC_BITS), .SHORTCUT(SHORTCUT), .S_LANES(S_LANES), .S_BITS(S_BITS),
        .P_IN_W(P_IN_W), .P_GROUPS(P_GROUPS), .P_STRIDE(P_STRIDE), .P_LANES(P_LANES), .P_A_BITS(P_A_BITS),
        .P_A_SIGNED(P_A_SIGNED), .P_W_BITS(P_W_BITS), .P_ODD(P_ODD), .P_ACC_BITS(P_ACC_BITS), .R_BITS(R_BITS),
        .MUL_BITS(MUL_BITS), .POWERS(POWERS), .BIAS_BITS(BIAS_BITS), .SHIFT_BITS(SHIFT_BITS), .BASE_LO(BASE_LO), .BASE_HI(BASE_HI),
        .WINDOW_SHIFT(WINDOW_SHIFT), .WINDOW_ROUND(WINDOW_ROUND), .LO(LO), .HI(HI), .Q_BITS(Q_BITS)
    ) conv (
        .clk(clk), .reset(reset), .start(start), .busy(busy), .a_address(a_address), .a(a), .w_address(w_address), .w(w),
        .p_a_address(p_a_address), .p_a(p_a), .p_w_address(p_w_address), .p_w(p_w), .s_address(s_address), .s(s),
        .channel(channel), .mul(mul), .mul_r(mul_r), .bias(bias), .shift(shift), .sum_valid(sum_valid), .acc(acc),
        .r(r), .code_valid(code_valid), .q(q)
    );

    // What must come.
    reg signed [31:0] acc_golden[0:OUTPUTS-1];
    reg signed [31:0] p_acc_golden[0:OUTPUTS-1];
    reg [Q_LANES*Q_BITS-1:0] q_golden[0:Q_WORDS-1];

    // Sums at the width of the golden ones.
    wire signed [31:0] acc_32 = {{32-ACC_BITS{acc[ACC_BITS-1]}}, acc};
    wire signed [31:0] r_32 = {{32-R_BITS{r[R_BITS-1]}}, r};

    integer picture, cycles, sums, equal_sums, codes, equal_codes, word, lane, c;
    reg [Q_LANES*Q_BITS-1:0] expected;
    reg [8*256-1:0] path;

    // What is unknown equals nothing, not even what is unknown too.
    task compare;
        begin
            if (sum_valid) begin
                if (^{acc, r} !== 1'bx && acc_32 === acc_golden[sums] && (SHORTCUT != 2 || r_32 === p_acc_golden[sums]))
                    equal_sums = equal_sums + 1;
                sums = sums + 1;
            end
            if (code_valid) begin
                expected = q_golden[word];
                if (^q !== 1'bx && q === expected[lane*Q_BITS +: Q_BITS])
                    equal_codes = equal_codes + 1;
                codes = codes + 1;
                c = c == OUT_C - 1 ? 0 : c + 1;
                lane = lane == Q_LANES - 1 || c == 0 ? 0 : lane + 1;
                if (lane == 0)
                    word = word + 1;
            end
        end
    endtask

    initial begin
        if (!$value$plusargs("picture=%d", picture))
            picture = 0;
        $readmemh({"hex/", CONV, ".codes.hex"}, w_memory);
        $readmemh({"hex/", CONV, ".mul.hex"}, mul_memory);
        $readmemh({"hex/", CONV, ".bias.hex"}, bias_memory);
        $readmemh({"hex/", CONV, ".shift.hex"}, shift_memory);
        $sformat(path, "hex/golden/%0d/%0s.hex", picture, INPUT);
        $readmemh(path, a_memory);
        $sformat(path, "hex/golden/%0d/%0s.acc.hex", picture, CONV);
        $readmemh(path, acc_golden);
        $sformat(path, "hex/golden/%0d/%0s.hex", picture, LAYER);
        $readmemh(path, q_golden);
        if (SHORTCUT == 1) begin
            $readmemh({"hex/", CONV, ".shortcut.hex"}, mul_r_memory);
            $sformat(path, "hex/golden/%0d/%0s.hex", picture, ADDED);
            $readmemh(path, s_memory);
        end
        if (SHORTCUT == 2) begin
            $readmemh({"hex/", PROJECTION, ".codes.hex"}, p_w_memory);
            $readmemh({"hex/", PROJECTION, ".mul.hex"}, mul_r_memory);
            $sformat(path, "hex/golden/%0d/%0s.hex", picture, ADDED);
            $readmemh(path, p_a_memory);
            $sformat(path, "hex/golden/%0d/%0s.acc.hex", picture, PROJECTION);
            $readmemh(path, p_acc_golden);
        end
        cycles = 0;
        sums = 0;
        equal_sums = 0;
        codes = 0;
        equal_codes = 0;
        word = 0;
        lane = 0;
        c = 0;
        repeat (2) @(negedge clk);
        reset = 1'b0;
        start = 1'b1;
        @(negedge clk);
        start = 1'b0;
        // Four more cycles than it is busy: until the last code is there, and one that must bring nothing.
        while (busy || cycles < 4) begin
            compare;
            cycles = busy ? 0 : cycles + 1;
            @(negedge clk);
        end
        $display("%0s: %0d of %0d codes equal, %0d of %0d accumulators, picture %0d", LAYER, equal_codes, OUTPUTS,
            equal_sums, OUTPUTS, picture);
        if (codes != OUTPUTS || equal_codes != OUTPUTS || sums != OUTPUTS || equal_sums != OUTPUTS)
            $fatal(1, "%0s differs from the golden vectors", LAYER);
        $finish;
    end
endmodule
