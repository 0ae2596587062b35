"""Times the float evaluation of ResNet-18 in its CIFAR form in PyTorch on the CPU: torch_float.py [WIDTH [BATCH [THREADS]]]

Random weights; milliseconds a batch, median of seven after a first one."""

import statistics
import sys
import time

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        projects = stride != 1 or c_in != c_out
        self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)) if projects else nn.Identity()

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18(width):
    layers, c_in = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()], width
    for stage in range(4):
        for block in range(2):
            c_out = width << stage
            layers.append(Block(c_in, c_out, 2 if stage and not block else 1))
            c_in = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, 100)).eval()


width, batch, threads = (int(a) for a in (sys.argv[1:] + ["16", "128", "2"][len(sys.argv) - 1 :]))
torch.set_num_threads(threads)
print(f"PyTorch {torch.__version__}, width {width}, batch {batch}, {threads} threads, milliseconds a batch")
for layout in (torch.contiguous_format, torch.channels_last):
    net, x, times = resnet18(width).to(memory_format=layout), torch.randn(batch, 3, 32, 32).to(memory_format=layout), []
    with torch.no_grad():
        for _ in range(8):
            begin = time.perf_counter()
            net(x)
            times.append(1e3 * (time.perf_counter() - begin))
    print(f"{str(layout):28} {statistics.median(times[1:]):.1f}")
