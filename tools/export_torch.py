"""Networks of PyTorch, exported through TorchScript and through dynamo."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["export"]

_OPSET = 18


class Cnn(nn.Module):  # type: ignore[misc]
    """Convolutions with BatchNorm, pooling, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, following in ((3, 8), (8, 16), (16, 24)):
            layers += [nn.Conv2d(width, following, 3, padding=1), nn.BatchNorm2d(following), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, 16, 16] to scores [N, 10]."""
        out: Tensor = self.head(self.features(x).mean((2, 3)))
        return out


class MobileBlock(nn.Module):  # type: ignore[misc]
    """An inverted residual with HardSwish and squeeze-and-excitation, as in MobileNet v3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16))
        self.expand = nn.Sequential(nn.Conv2d(16, 48, 1, bias=False), nn.BatchNorm2d(48), nn.Hardswish())
        self.depth = nn.Sequential(nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False), nn.BatchNorm2d(48))
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(48, 12, 1), nn.ReLU(), nn.Conv2d(12, 48, 1), nn.Hardsigmoid()
        )
        self.project = nn.Sequential(nn.Conv2d(48, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, 32, 32] to scores [N, 10]."""
        x = nn.functional.hardswish(self.stem(x))
        y = nn.functional.hardswish(self.depth(self.expand(x)))
        x = x + self.project(y * self.squeeze(y))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Transformer(nn.Module):  # type: ignore[misc]
    """Token embedding, one encoder layer, a classifier; batch and length are dynamic."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 32)
        self.norm = nn.LayerNorm(32)
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [N, L] to scores [N, 5]."""
        x = self.embedding(tokens)
        n, length, width = x.shape
        q, k, v = (part.view(n, length, 4, width // 4).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, width))
        x = x + self.mlp(x)
        out: Tensor = self.head(x.mean(1))
        return out


class Recurrent(nn.Module):  # type: ignore[misc]
    """Token embedding, an LSTM, a GRU in both directions, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.lstm = nn.LSTM(16, 24, batch_first=True)
        self.gru = nn.GRU(24, 16, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [N, 12] to scores [N, 12, 4]."""
        x, _ = self.lstm(self.embedding(tokens))
        x, _ = self.gru(x)
        out: Tensor = self.head(x)
        return out


class Decoder(nn.Module):  # type: ignore[misc]
    """A strided convolution, then back to the size of the image by ConvTranspose and Upsample."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.LeakyReLU(0.1))
        self.more = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.InstanceNorm2d(16), nn.SiLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 1, 16, 16] to masks [N, 1, 16, 16]."""
        first = self.down(x)
        out: Tensor = self.last(torch.cat([first, self.up(self.more(first))], 1))
        return out


def _cases() -> dict[str, tuple[nn.Module, Tensor, dict[int, str]]]:
    """Return for each name a network, an input, and the names of its dynamic axes."""
    return {
        "cnn": (Cnn(), torch.rand(2, 3, 16, 16), {0: "N"}),
        "mobile_block": (MobileBlock(), torch.rand(2, 3, 32, 32), {0: "N"}),
        "transformer": (Transformer(), torch.randint(0, 64, (2, 12)), {0: "N", 1: "L"}),
        "recurrent": (Recurrent(), torch.randint(0, 40, (1, 12)), {}),
        "decoder": (Decoder(), torch.rand(2, 1, 16, 16), {0: "N"}),
    }


def export(folder: Path) -> list[str]:
    """Export every network both ways; return the file names."""
    names = []
    for name, (network, example, axes) in _cases_seeded().items():
        for way in ("torchscript", "dynamo"):
            file = f"torch_{way}_{name}.onnx"
            settings: dict[str, Any] = {"dynamo": way == "dynamo", "opset_version": _OPSET}
            if way == "dynamo":
                settings |= {"dynamic_shapes": [{axis: torch.export.Dim(n) for axis, n in axes.items()}]}
                settings |= {"external_data": False}
            else:
                settings |= {"dynamic_axes": {"x": axes}}
            torch.onnx.export(
                network.eval(), (example,), str(folder / file), input_names=["x"], output_names=["y"], **settings
            )
            names.append(file)
    return names


def _cases_seeded() -> dict[str, tuple[nn.Module, Tensor, dict[int, str]]]:
    torch.manual_seed(0)
    cases = _cases()
    for network, _, _ in cases.values():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # as after training: folding them must move something
                module.running_mean = torch.randn_like(module.bias) * 0.1
                module.running_var = torch.rand_like(module.bias) + 0.5
    return cases
