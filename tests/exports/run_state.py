"""Loads an exported state into torch and compares logits: run_state.py float|quantized STATE DEPTH IMAGES LOGITS

IMAGES are bytes (N, 3, H, W), LOGITS the floats (N, classes) that are expected. Prints a JSON object."""

import json
import sys

import torch
from safetensors import safe_open
from torch import nn

STAGES = {8: [1, 1, 1], 10: [1, 1, 1, 1], 18: [2, 2, 2, 2], 20: [3, 3, 3]}


class BasicBlock(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.relu2 = nn.ReLU()
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, depth, width, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stem = nn.ReLU()
        self.layers = []
        channels = width
        for stage, blocks in enumerate(STAGES[depth]):
            out = width << stage
            strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
            parts = [BasicBlock(channels if k == 0 else out, out, stride) for k, stride in enumerate(strides)]
            self.layers.append(f"layer{stage + 1}")
            self.add_module(self.layers[-1], nn.Sequential(*parts))
            channels = out
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.stem(self.bn1(self.conv1(x)))
        for name in self.layers:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3)))


class Quantizer(nn.Module):
    """ReLU and quantizer of an activation."""

    def __init__(self, scale, window):
        super().__init__()
        self.scale, self.window = scale, window.tolist()

    def forward(self, x):
        base_lo, base_hi, shift, rounds, lo, hi = self.window
        base = torch.round(x / (self.scale / 2**shift)).clamp(base_lo, base_hi)
        half = 2 ** (shift - 1) if rounds and shift else 0
        return torch.floor((base + half) / 2**shift).clamp(lo, hi) * self.scale


class Affine(nn.Module):
    """A batch norm whose factor is a power of two."""

    def __init__(self, norm, factor):
        super().__init__()
        assert (torch.frexp(factor).mantissa.abs() == 0.5).all()
        self.factor = factor.reshape(-1, 1, 1)
        self.bias = (norm.bias - norm.running_mean * factor).reshape(-1, 1, 1)

    def forward(self, x):
        return x * self.factor + self.bias


def quantize(net, quant):
    """Puts codes times scales in the place of weights, quantizers in that of ReLUs, and given factors in that of batch norms'."""
    for name, module in list(net.named_modules()):
        parent, _, last = name.rpartition(".")
        if isinstance(module, nn.ReLU):
            setattr(net.get_submodule(parent), last, Quantizer(quant[f"{name}.scale"], quant[f"{name}.window"]))
        elif isinstance(module, nn.BatchNorm2d) and f"{name}.factor" in quant:
            setattr(net.get_submodule(parent), last, Affine(module, quant[f"{name}.factor"]))
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            codes, scale = quant[f"{name}.weight.codes"], quant[f"{name}.weight.scale"]
            assert codes.dtype == torch.int8
            module.weight.data = codes.float() * scale.reshape(-1, *[1] * (codes.dim() - 1))


kind, path, depth, images, logits = sys.argv[1:]
with safe_open(path, "pt") as file:
    about = json.loads(file.metadata()["cqat_export"])
    tensors = {name: file.get_tensor(name) for name in file.keys()}
state = {name: t for name, t in tensors.items() if not name.startswith("quant.")}
quant = {name[len("quant.") :]: t for name, t in tensors.items() if name.startswith("quant.")}
net = ResNet(int(depth), state["conv1.weight"].shape[0], len(about["classes"]))
net.load_state_dict(state, strict=True)
net.eval()

count = len(open(logits, "rb").read()) // 4 // len(about["classes"])
side = round((len(open(images, "rb").read()) / 3 / count) ** 0.5)
pictures = torch.frombuffer(bytearray(open(images, "rb").read()), dtype=torch.uint8).reshape(-1, 3, side, side)
want = torch.frombuffer(bytearray(open(logits, "rb").read()), dtype=torch.float32).reshape(len(pictures), -1)
if kind == "float":
    mean, std = (torch.tensor(about["normalisation"][part], dtype=torch.float64).reshape(3, 1, 1) for part in ("mean", "std"))
    x = ((pictures.double() / 255 - mean) / std).float()
else:
    quantize(net, quant)
    x = torch.stack([quant["input.codes"][c][pictures[:, c].long()] for c in range(3)], 1) * quant["input.scale"]
with torch.no_grad():
    got = net(x)
error = (got - want).abs()
result = {
    "pictures": len(pictures),
    "same_top1": int((got.argmax(1) == want.argmax(1)).sum()),
    "equal": int((error.max(1).values < 1e-4).sum()),
    "worst": float(error.max()),
    "mean": float(error.mean()),
    "largest": float(want.abs().max()),
}
print(json.dumps(result))
