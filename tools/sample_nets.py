"""The networks of `sample_models/` and how each is trained: plain dense training, nothing that helps a compressor."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

# mean and standard deviation of all pixels of the Fashion-MNIST training images, in 0..255
PIXEL_MEAN = 72.9404
PIXEL_STD = 90.0212


class BasicBlock(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Two 3x3 convolutions with BatchNorm around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H / stride, W / stride]."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + self.shortcut(x)
        return functional.relu(y)


def resnet8() -> nn.Sequential:
    """A stem and three residual blocks of 16, 32 and 64 channels: the ResNet-8 of MLPerf Tiny for 28x28 grey images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        BasicBlock(16, 16, 1),
        BasicBlock(16, 32, 2),
        BasicBlock(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def lenet_300_100() -> nn.Sequential:
    """Three fully connected layers: 784-300-100-10 (LeCun et al. 1998)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def lenet5() -> nn.Sequential:
    """LeNet-5 as Caffe's example has it: no activation after the convolutions, one ReLU between the dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * 4 * 4, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one network is built and trained. The learning rate follows one cycle: linear rise, cosine fall to zero."""

    build: Callable[[], nn.Sequential]
    optimizer: Literal["sgd", "adam"]  # sgd has Nesterov momentum 0.9
    learning_rate: float  # peak of the cycle
    weight_decay: float
    epochs: int
    batch: int
    shift: int  # training images are moved by up to this many pixels, and mirrored half of the time
    bar: float  # least top-1 on the 10,000 test images; a network below it is not written
    seed: int = 0


RECIPES = {
    "lenet_300_100": Recipe(lenet_300_100, "adam", 1e-3, 1e-5, epochs=30, batch=128, shift=0, bar=0.885),
    "lenet5": Recipe(lenet5, "adam", 1e-3, 1e-5, epochs=14, batch=128, shift=1, bar=0.900),
    "resnet8": Recipe(resnet8, "sgd", 0.1, 5e-4, epochs=12, batch=128, shift=1, bar=0.910),
}


class ByteImages(nn.Module):  # type: ignore[misc]
    """A network with its normalisation in front, so that it takes images as they are stored."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        """Images uint8 [N, 1, 28, 28] -> logits float32 [N, 10]."""
        logits: Tensor = self.net((image.float() - PIXEL_MEAN) / PIXEL_STD)
        return logits


def cycle(done: float, warm: float = 0.2) -> float:
    """Factor on the peak learning rate when the share `done` of the training is over."""
    if done < warm:
        return 0.04 + 0.96 * done / warm
    return 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


def augment(images: Tensor, shift: int, random: torch.Generator) -> Tensor:
    """Mirror half of the images [N, 1, H, W] and move each by up to `shift` pixels; what comes into view is black."""
    n, _, height, width = images.shape
    padded = functional.pad(images, (shift,) * 4).squeeze(1)
    down, right = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=random)
    mirrored = torch.rand(n, 1, generator=random) < 0.5
    rows = down + torch.arange(height)  # [N, H]
    columns = torch.arange(width).expand(n, width)
    columns = right + torch.where(mirrored, columns.flip(1), columns)  # [N, W]
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def make_optimizer(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that `recipe` names, over all parameters of `net`."""
    if recipe.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        net.parameters(), recipe.learning_rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )


def train(
    recipe: Recipe, images: NDArray[np.uint8], labels: NDArray[np.int64], log: Callable[[str], None]
) -> ByteImages:
    """Train on all of `images` [N, 1, 28, 28] and return the network in evaluation mode, after its last epoch.

    One thread and a fixed seed: the same machine and torch version give the same weights again.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    random = torch.Generator().manual_seed(recipe.seed)
    # channels last is the fast layout of CPU convolutions; it does not change what is computed
    net = ByteImages(recipe.build())
    net.train().to(memory_format=torch.channels_last)
    optimizer = make_optimizer(recipe, net)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    steps, step = recipe.epochs * (len(x) // recipe.batch), 0
    for epoch in range(1, recipe.epochs + 1):
        start, total = time.monotonic(), 0.0
        order = torch.randperm(len(x), generator=random)
        for at in range(0, len(x) - recipe.batch + 1, recipe.batch):  # the incomplete last batch is left out
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * cycle(step / steps)
            chosen = order[at : at + recipe.batch]
            loss = functional.cross_entropy(net(augment(x[chosen], recipe.shift, random)), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            step += 1
        mean = total / (len(x) // recipe.batch)
        log(f"epoch {epoch}/{recipe.epochs}  loss {mean:.4f}  {time.monotonic() - start:.1f} s")
        if not math.isfinite(mean):
            raise FloatingPointError(f"training diverged in epoch {epoch}: loss {mean}")
    net.eval().to(memory_format=torch.contiguous_format)
    return net
