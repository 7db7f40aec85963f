"""Inception-v3 as the Fréchet Inception distance uses it (arXiv 1512.00567, arXiv 1706.08500).

The weights are those of TensorFlow's graph of 5 December 2015, ported by pytorch-fid; names of
weights as in its file `pt_inception-2015-12-05-6726825d.pth`, which is read as it is:
``from_published(FidInception, state)``. The network differs from torchvision's Inception-v3, and so
do its features:

- averages under a window leave out the padding, as TensorFlow's do;
- the last block's pooling takes maxima where the paper averages;
- there are 1008 classes and no auxiliary classifier.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 2048
"""Numbers that describe a picture: the last maps, averaged over positions."""
CLASSES = 1008
"""Of the classifier, ImageNet's among them."""
INPUT_SIDE = 299
"""Pixels that pictures are brought to."""

_ROW, _COLUMN = (1, 7), (7, 1)
_SHORT_ROW, _SHORT_COLUMN = (1, 3), (3, 1)


class FidInception(nn.Module):
    """The 2048 features behind FID, and the 1008 logits behind the Inception score."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = _ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _ConvNorm(32, 32, 3, padding="valid")
        self.Conv2d_2b_3x3 = _ConvNorm(32, 64, 3)
        self.Conv2d_3b_1x1 = _ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = _ConvNorm(80, 192, 3, padding="valid")
        self.Mixed_5b = _Square(192, pooled=32)
        self.Mixed_5c = _Square(256, pooled=64)
        self.Mixed_5d = _Square(288, pooled=64)
        self.Mixed_6a = _ReduceFirst()
        self.Mixed_6b = _Lines(128)
        self.Mixed_6c = _Lines(160)
        self.Mixed_6d = _Lines(160)
        self.Mixed_6e = _Lines(192)
        self.Mixed_7a = _ReduceSecond()
        self.Mixed_7b = _Split(1280, takes_maximum=False)
        self.Mixed_7c = _Split(2048, takes_maximum=True)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 2048"]:
        """Features of pictures of any size.

        Brought to 299 x 299 by bilinear interpolation at half-pixel centers without antialiasing,
        then to [-1, 1] by 2 x - 1: pytorch-fid's way. TensorFlow's graph resizes without half-pixel
        centers and takes (x - 128) / 128 of bytes, so codes that imitate it (torch-fidelity,
        NVIDIA's) get slightly other features.

        Args:
            images: in [0, 1].
        """
        size = (INPUT_SIDE, INPUT_SIDE)
        x = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        x = 2 * x - 1
        x = _in_turn(x, self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3)
        x = functional.max_pool2d(x, 3, stride=2)
        x = _in_turn(x, self.Conv2d_3b_1x1, self.Conv2d_4a_3x3)
        x = functional.max_pool2d(x, 3, stride=2)  # batch 192 35 35
        x = _in_turn(x, self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a)
        x = _in_turn(x, self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e)
        x = _in_turn(x, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c)  # batch 2048 8 8
        return x.mean((2, 3))

    def logits(self, features: Float[Tensor, "batch 2048"]) -> Float[Tensor, "batch 1008"]:
        """Of the classes, without the classifier's bias.

        The published code of the Inception score (arXiv 1606.03498) multiplies by the classifier's
        matrix and adds no bias; so do we, or the figures would not compare.

        Args:
            features: from `forward`.
        """
        return functional.linear(features, self.fc.weight)


class _ConvNorm(nn.Module):
    """Convolution without bias, normalization, ReLU."""

    def __init__(
        self,
        entering: int,
        leaving: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: str | None = None,
    ):
        super().__init__()
        padding = padding or ("same" if stride == 1 else "valid")
        self.conv = nn.Conv2d(entering, leaving, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(leaving, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Square(nn.Module):
    """Figure 5 of the paper: windows of 1, 3 and 5."""

    def __init__(self, entering: int, pooled: int):
        super().__init__()
        self.branch1x1 = _ConvNorm(entering, 64, 1)
        self.branch5x5_1 = _ConvNorm(entering, 48, 1)
        self.branch5x5_2 = _ConvNorm(48, 64, 5)
        self.branch3x3dbl_1 = _ConvNorm(entering, 64, 1)
        self.branch3x3dbl_2 = _ConvNorm(64, 96, 3)
        self.branch3x3dbl_3 = _ConvNorm(96, 96, 3)
        self.branch_pool = _ConvNorm(entering, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = _in_turn(x, self.branch5x5_1, self.branch5x5_2)
        three = _in_turn(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3)
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average(x))], 1)


class _ReduceFirst(nn.Module):
    """From 35 to 17 positions a side."""

    def __init__(self):
        super().__init__()
        self.branch3x3 = _ConvNorm(288, 384, 3, stride=2)
        self.branch3x3dbl_1 = _ConvNorm(288, 64, 1)
        self.branch3x3dbl_2 = _ConvNorm(64, 96, 3)
        self.branch3x3dbl_3 = _ConvNorm(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = _in_turn(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3)
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, stride=2)], 1)


class _Lines(nn.Module):
    """Figure 6 of the paper: windows of 7 as a row and a column."""

    def __init__(self, inner: int):
        super().__init__()
        self.branch1x1 = _ConvNorm(768, 192, 1)
        self.branch7x7_1 = _ConvNorm(768, inner, 1)
        self.branch7x7_2 = _ConvNorm(inner, inner, _ROW)
        self.branch7x7_3 = _ConvNorm(inner, 192, _COLUMN)
        self.branch7x7dbl_1 = _ConvNorm(768, inner, 1)
        self.branch7x7dbl_2 = _ConvNorm(inner, inner, _COLUMN)
        self.branch7x7dbl_3 = _ConvNorm(inner, inner, _ROW)
        self.branch7x7dbl_4 = _ConvNorm(inner, inner, _COLUMN)
        self.branch7x7dbl_5 = _ConvNorm(inner, 192, _ROW)
        self.branch_pool = _ConvNorm(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = _in_turn(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3)
        double = _in_turn(x, self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3)
        double = _in_turn(double, self.branch7x7dbl_4, self.branch7x7dbl_5)
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], 1)


class _ReduceSecond(nn.Module):
    """From 17 to 8 positions a side."""

    def __init__(self):
        super().__init__()
        self.branch3x3_1 = _ConvNorm(768, 192, 1)
        self.branch3x3_2 = _ConvNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _ConvNorm(768, 192, 1)
        self.branch7x7x3_2 = _ConvNorm(192, 192, _ROW)
        self.branch7x7x3_3 = _ConvNorm(192, 192, _COLUMN)
        self.branch7x7x3_4 = _ConvNorm(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = _in_turn(x, self.branch3x3_1, self.branch3x3_2)
        seven = _in_turn(x, self.branch7x7x3_1, self.branch7x7x3_2)
        seven = _in_turn(seven, self.branch7x7x3_3, self.branch7x7x3_4)
        return torch.cat([three, seven, functional.max_pool2d(x, 3, stride=2)], 1)


class _Split(nn.Module):
    """Figure 7 of the paper: a row and a column of 3 side by side."""

    def __init__(self, entering: int, takes_maximum: bool):
        super().__init__()
        self.takes_maximum = takes_maximum
        self.branch1x1 = _ConvNorm(entering, 320, 1)
        self.branch3x3_1 = _ConvNorm(entering, 384, 1)
        self.branch3x3_2a = _ConvNorm(384, 384, _SHORT_ROW)
        self.branch3x3_2b = _ConvNorm(384, 384, _SHORT_COLUMN)
        self.branch3x3dbl_1 = _ConvNorm(entering, 448, 1)
        self.branch3x3dbl_2 = _ConvNorm(448, 384, 3)
        self.branch3x3dbl_3a = _ConvNorm(384, 384, _SHORT_ROW)
        self.branch3x3dbl_3b = _ConvNorm(384, 384, _SHORT_COLUMN)
        self.branch_pool = _ConvNorm(entering, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = _in_turn(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        parts = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        pooled = functional.max_pool2d(x, 3, 1, 1) if self.takes_maximum else _average(x)
        return torch.cat([*parts, self.branch_pool(pooled)], 1)


def _average(x: Tensor) -> Tensor:
    """Means under a window of 3, of the positions that exist."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _in_turn(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x
