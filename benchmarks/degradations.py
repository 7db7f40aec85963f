"""Whether kid-unflat and perceptual-unflat order known degradations rightly.

    python benchmarks/degradations.py photos-val.tar scenes-val.tar

One half of some pictures is held against the other half, degraded more and more: blurred, noised,
compressed, mixed with pictures of another set, cut down to fewer classes. A distance is right if
it grows from level to level. Beside the bundled network stand what it is worth: the same network
untrained, and the pixels themselves at 16 x 16. None of the pictures was trained on. Writes
benchmarks/results/degradations.json.
"""

import io
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from unflat.data import PictureDataset, PosedScenes
from unflat.data.posed import resize_maps
from unflat.evaluation import open_features
from unflat.metrics import kid
from unflat.nn.feature_net import FeatureNet
from unflat.report import versions

OUT = Path(__file__).parent / "results" / "degradations.json"
SIDES = (64, 128)
BATCH = 25


def blur(images, sigma):
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1)
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    window = (window / window.sum()).expand(3, 1, 1, -1)
    padded = functional.pad(images, (radius,) * 4, mode="reflect")
    return functional.conv2d(functional.conv2d(padded, window, groups=3), window.mT, groups=3)


def noise(images, sigma):
    drawn = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + sigma * drawn).clamp(0, 1)


def jpeg(images, quality):
    found = []
    for image in images:
        file = io.BytesIO()
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=quality)
        found.append(torch.from_numpy(np.array(Image.open(file), dtype=np.float32) / 255))
    return torch.stack(found).permute(0, 3, 1, 2)


LEVELS = {
    "blur, sigma in pixels": (blur, (0.4, 0.7, 1.0, 2.0, 4.0)),
    "noise, sigma of 1": (noise, (0.01, 0.02, 0.05, 0.1, 0.2)),
    "JPEG, quality": (jpeg, (90, 60, 30, 15, 5)),
}
MIXED = (0.05, 0.1, 0.25, 0.5, 1.0)
CLASSES = (14, 12, 8, 4, 1)


class Pixels:
    """The picture itself, reduced, as its own feature."""

    def __call__(self, images):
        return functional.adaptive_avg_pool2d(images, 16).flatten(1)


def calibrated(network, images):
    """Features of the same scale for all: centered, unit variance on the reference."""
    vectors = vectors_of(network, images)
    center, scale = vectors.mean(0), vectors.var(0).mean().sqrt()
    return lambda pictures: (vectors_of(network, pictures) - center) / scale


@torch.no_grad()
def vectors_of(network, images):
    return torch.cat([network(part) for part in images.split(BATCH)])


def main():
    photos, scenes = sys.argv[1], sys.argv[2]
    result = {"versions": versions(), "sides": list(SIDES)}
    for side in SIDES:
        dataset = PictureDataset(photos, side)
        images = dataset.batch(range(len(dataset)))["image"]
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        others = torch.stack([resize_maps(s.images[:1], side)[0] for s in PosedScenes(scenes)])
        torch.manual_seed(0)
        bundled = open_features("unflat")
        result["network"] = bundled.describe()
        networks = {
            "unflat": bundled,
            "untrained": calibrated(FeatureNet().eval(), images[first]),
            "pixels": calibrated(Pixels(), images[first]),
        }
        result[str(side)] = {
            name: measure(network, images, first, second, others, torch.from_numpy(dataset.labels))
            for name, network in networks.items()
        }
        result[str(side)]["perceptual-unflat"] = perceptual(bundled, images[second])
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(lines(result)))


def measure(network, images, first, second, others, labels):
    """KID with its standard error for every degradation and level."""
    real = vectors_of(network, images[first])

    def distance(vectors):
        found = kid(vectors, real)
        return [found.mean, found.standard_error]

    clean = vectors_of(network, images[second])
    found = {"none": [distance(clean)]}
    for name, (degrade, levels) in LEVELS.items():
        found[name] = [
            distance(vectors_of(network, degrade(images[second], level))) for level in levels
        ]
    foreign = vectors_of(network, others)
    shares = []
    for share in MIXED:
        count = min(len(foreign), round(share * len(clean)))
        kept = round(count / share) - count
        shares.append(distance(torch.cat([clean[:kept], foreign[:count]])))
    found["renders among the photos, share"] = shares
    found["classes kept, of 15"] = [distance(clean[labels[second] < kept]) for kept in CLASSES]
    return found


def perceptual(network, images):
    """Mean distance of every degraded picture to the one it came from."""
    found = {}
    for name, (degrade, levels) in LEVELS.items():
        with torch.no_grad():
            found[name] = [
                torch.cat([network.distance(degrade(p, level), p) for p in images.split(BATCH)])
                .mean()
                .item()
                for level in levels
            ]
    return found


def ordered(clean, values, levels):
    """From which level on every one is farther than the one before, and than no degradation."""
    for first, level in enumerate(levels):
        rest = values[first:]
        if rest[0] > clean and all(a < b for a, b in pairwise(rest)):
            return "yes" if first == 0 else f"from {level:g} on"
    return "no"


def lines(result):
    """The tables of docs/metrics.md."""
    levels = {name: levels for name, (_, levels) in LEVELS.items()}
    levels |= {"renders among the photos, share": MIXED, "classes kept, of 15": CLASSES}
    found = []
    for side in result["sides"]:
        measured = result[str(side)]
        floor = measured["unflat"]["none"][0]
        found += [
            f"{side} px, kid-unflat; undegraded {floor[0]:.3f} ± {floor[1]:.3f}",
            "",
            "| degradation | levels | kid-unflat | ordered | untrained | pixels |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for name, steps in levels.items():
            cells = []
            for network in ("unflat", "untrained", "pixels"):
                values = [value for value, _ in measured[network][name]]
                cells.append((values, ordered(measured[network]["none"][0][0], values, steps)))
            shown = ", ".join(f"{value:.3f}" for value in cells[0][0])
            words = ", ".join(f"{step:g}" for step in steps)
            others = " | ".join(cell[1] for cell in cells[1:])
            found.append(f"| {name} | {words} | {shown} | {cells[0][1]} | {others} |")
        found += ["", "| degradation | perceptual-unflat | ordered |", "| --- | --- | --- |"]
        for name, values in measured["perceptual-unflat"].items():
            shown = ", ".join(f"{value:.3f}" for value in values)
            found.append(f"| {name} | {shown} | {ordered(0, values, LEVELS[name][1])} |")
        found.append("")
    return found[:-1]


if __name__ == "__main__":
    main()
