// Sums of a convolution: integer operands, added exactly.
alias Sum = i32;
alias Sum4 = vec4<i32>;
