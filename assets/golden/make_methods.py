"""methods.json: values and gradients of the quantizers of other methods, from PyTorch in float64, as their papers state them.

    python make_methods.py        # writes methods.json beside itself; needs torch alone

Every case has x and the gradient dy of the quantized value, both exact in f32, the parameters, and what comes out: y, dx, and the
gradients of the learned parameters. Rounding is half to even; the straight-through estimator passes gradients through it.
`windows` holds values and the window that cqat-auto is to find for them: the one with the least squared error, of all that were tried.
"""

import json
import pathlib

import torch

torch.set_default_dtype(torch.float64)


def round_pass(x):
    return x + (torch.round(x) - x).detach()


def grad_scale(x, factor):
    return (x - x * factor).detach() + x * factor


def vector(signed, count, seed, top):
    """Values with all their f32 bits, denser near 0, some beyond the codes."""
    g = torch.Generator().manual_seed(seed)
    x = top * torch.rand(count, generator=g, dtype=torch.float64) ** 1.5
    if signed:
        x = x * (2 * torch.randint(0, 2, (count,), generator=g) - 1)
    dy = 2 * torch.rand(count, generator=g, dtype=torch.float64) - 1
    return x.float().double(), dy.float().double()


def lsq(x, s, lo, hi):
    """Esser et al. 2020, appendix B; s is learned, its gradient is multiplied by 1 / sqrt(len(x) * hi)."""
    s = grad_scale(s, 1.0 / (x.numel() * hi) ** 0.5)
    return round_pass(torch.clamp(x / s, lo, hi)) * s


def lsqplus(x, s, beta, hi):
    """Bhalgat et al. 2020, equation 2 with both scaled as in LSQ; beta is a whole number of steps."""
    factor = 1.0 / (x.numel() * hi) ** 0.5
    s, beta = grad_scale(s, factor), grad_scale(beta, factor)
    return round_pass(torch.clamp((x - beta) / s, 0, hi)) * s + beta


def pact(x, alpha, hi):
    """Choi et al. 2018, equations 1 to 3: the clip is learned, the quantizer behind it passes gradients."""
    y = torch.where(x < alpha, x, alpha)
    s = (alpha / hi).detach()
    return y + (torch.round(y.detach() / s) * s - y).detach()


def minmax(x, s, lo, hi):
    """Jacob et al. 2018 without offset; s is a constant of the range."""
    r = torch.round(x / s)
    inside = (r >= lo) & (r <= hi)
    return torch.clamp(r, lo, hi) * s + torch.where(inside, x, x.detach()) - x.detach()


def dorefa_weights(w, bits):
    """Zhou et al. 2016, equation 9; the maximum is a constant."""
    n = 2**bits - 1
    t = torch.tanh(w)
    return 2 * round_pass(n * (t / (2 * t.detach().abs().max()) + 0.5)) / n - 1


def dorefa_activations(x, bits):
    n = 2**bits - 1
    return round_pass(n * torch.clamp(x, 0, 1)) / n


class Ewgs(torch.autograd.Function):
    """Lee et al. 2021, equation 5: x_n in [0, 1] to the nearest of n + 1 levels."""

    @staticmethod
    def forward(ctx, x_n, n, delta):
        x_q = torch.round(x_n * n) / n
        ctx.save_for_backward(x_n - x_q)
        ctx.delta = delta
        return x_q

    @staticmethod
    def backward(ctx, g):
        (difference,) = ctx.saved_tensors
        return g * (1 + ctx.delta * torch.sign(g) * difference), None, None


def ewgs_weights(w, upper, bits, delta):
    """Of the interval [-upper, upper]; the value is in the units of w. The gradient of w alone: that of the interval is LSQ's here."""
    n = 2**bits - 1
    w_n = torch.clamp((w + upper) / (2 * upper), 0, 1)
    return 2 * upper * (Ewgs.apply(w_n, n, delta) - 0.5)


def ewgs_activations(x, upper, bits, delta):
    n = 2**bits - 1
    return upper * Ewgs.apply(torch.clamp(x / upper, 0, 1), n, delta)


def case(name, method, bits, x, dy, f, parameters, constants=None):
    x = x.clone().requires_grad_()
    learned = {k: torch.tensor(v, requires_grad=True) for k, v in parameters.items()}
    y = f(x, **learned)
    y.backward(dy)
    out = {"name": name, "method": method, "bits": bits, "parameters": parameters, "constants": constants or {}}
    out |= {"x": x.tolist(), "dy": dy.tolist(), "y": y.tolist(), "dx": x.grad.tolist()}
    out["gradients"] = {k: 0.0 if v.grad is None else v.grad.item() for k, v in learned.items()}
    return out


def cases():
    for bits in (2, 3, 5, 8):
        lo, hi = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        w, dw = vector(True, 60, bits, 0.4)
        a, da = vector(False, 60, 10 + bits, 3.0)
        top = 2**bits - 1
        step, a_step = 0.25 / max(hi, 1), 2.5 / top
        yield case(f"lsq weights {bits}", "lsq", bits, w, dw, lambda x, step: lsq(x, step, lo, hi), {"step": step})
        yield case(f"lsq activations {bits}", "lsq", bits, a, da, lambda x, step: lsq(x, step, 0, top), {"step": a_step})
        # A window of the 8-bit code, once found, learns as LSQ's step does.
        name = "cqat-auto"
        yield case(f"{name} weights {bits}", name, bits, w, dw, lambda x, step: lsq(x, step, lo, hi), {"step": step})
        yield case(f"{name} activations {bits}", name, bits, a, da, lambda x, step: lsq(x, step, 0, top), {"step": a_step})
        largest = w.abs().max().item()
        yield case(f"minmax weights {bits}", "minmax", bits, w, dw, lambda x: minmax(x, largest / hi, -hi, hi), {})
        yield case(
            f"minmax activations {bits}", "minmax", bits, a, da, lambda x: minmax(x, 2.5 / top, 0, top), {}, {"range": 2.5}
        )
        for zero in (-1, 0, 1) if bits < 8 else (0,):
            yield case(
                f"lsqplus activations {bits} zero {zero}", "lsqplus", bits, a, da,
                lambda x, step, offset: lsqplus(x, step, offset, top), {"step": a_step, "offset": zero * a_step},
            )
        yield case(f"pact activations {bits}", "pact", bits, a, da, lambda x, alpha: pact(x, alpha, top), {"alpha": 2.5})
        yield case(f"dorefa activations {bits}", "dorefa", bits, a, da, lambda x: dorefa_activations(x, bits), {})
        delta = 0.5
        yield case(
            f"ewgs activations {bits}", "ewgs", bits, a, da,
            lambda x: ewgs_activations(x, 2.5, bits, delta), {}, {"upper": 2.5, "delta": delta},
        )
        if bits < 8:
            yield case(f"dorefa weights {bits}", "dorefa", bits, w, dw, lambda x: dorefa_weights(x, bits), {})
            yield case(
                f"ewgs weights {bits}", "ewgs", bits, w, dw,
                lambda x: ewgs_weights(x, 0.3, bits, delta), {}, {"upper": 0.3, "delta": delta},
            )


def windows():
    """Values, and which window of b bits inside their 8-bit grid has the least squared error: its step is that of the grid times 2^0
    to 2^(8 - b), of which `places` are tried; `shift` is the best power of two."""
    places = 2000
    for name, signed, bits, power in [
        ("weights", True, 5, 3), ("weights", True, 2, 1), ("activations", False, 4, 4), ("activations", False, 2, 1),
    ]:
        g = torch.Generator().manual_seed(100 + bits)
        x = torch.randn(1500, generator=g, dtype=torch.float64).abs() ** power
        x = (x * (2 * torch.randint(0, 2, (1500,), generator=g) - 1) if signed else x).float().double()
        lo, hi, grid = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 127) if signed else (0, 2**bits - 1, 255)
        unit = x.abs().max() / grid

        def error(factor):
            s = unit * factor
            return (torch.clamp(torch.round(x / s), lo, hi) * s - x).square().sum().item()

        free = min(error(2 ** ((8 - bits) * k / places)) for k in range(places + 1))
        shifts = [error(2.0**k) for k in range(9 - bits)]
        yield {"name": name, "bits": bits, "x": x.tolist(), "error": free, "shift": shifts.index(min(shifts)), "shifts": shifts}


if __name__ == "__main__":
    path = pathlib.Path(__file__).with_name("methods.json")
    out = {"torch": torch.__version__.split("+")[0], "cases": list(cases()), "windows": list(windows())}
    path.write_text(json.dumps(out) + "\n")
