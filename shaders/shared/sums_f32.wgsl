// Sums of a convolution: 32-bit floats, exact for integers below 2^24.
alias Sum = f32;
alias Sum4 = vec4<f32>;
