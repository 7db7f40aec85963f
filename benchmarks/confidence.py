"""What the confidence of a VQ3D scene predicts, and the constants of its formula.

    python benchmarks/confidence.py MODEL --scenes scenes-val.tar --photos photos-wild.tar

Confidence is a logistic of two things the model knows without a truth: the mean error that its
refiner expects of its own depth, and how well the tokens give the picture back. It is fitted to
the disparity correlation with the truth on the even scenes, on the same scenes upside down, and on
noise (whose correlation is none), and checked on the odd ones and on photographs unlike the
training data.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from unflat.data import PictureDataset
from unflat.data.posed import PosedScenes
from unflat.systems.vq3d import detail_field, load, render_canonical, token_field
from unflat.systems.vq3d.pipeline import visible_surface


def measure(model, image):
    """Expected error, canonical PSNR and the visible surface of one picture."""
    encoded = model.encode(image)
    base = token_field(model, encoded)
    refined = visible_surface(model, base, encoded, image)
    rgb, _, _ = render_canonical(base, image.shape[-1], 32)
    psnr = float(-10 * (rgb.clamp(0, 1) - image).square().mean().log10())
    surface = detail_field(model, encoded, image, image).disparity[0, 0]
    return float(refined.spread.mean()), psnr, surface


def fit(features, target):
    """Logistic regression onto targets in (0, 1) by Newton steps, lightly regularised."""
    design = np.c_[np.ones(len(features)), features]
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        guess = 1 / (1 + np.exp(-design @ weights))
        slope = guess * (1 - guess)
        hessian = design.T @ (design * slope[:, None]) + 1e-4 * np.eye(len(weights))
        weights += np.linalg.solve(hessian, design.T @ (target - guess) - 1e-4 * weights)
    return weights


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--scenes", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--count", type=int, default=100, help="pictures of --photos")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    model = load(options.model)
    side = model.config.resolution
    rows, flipped, truth, flipped_truth = [], [], [], []
    for scene in PosedScenes(options.scenes, side):
        image = scene.images[:1]
        error, psnr, surface = measure(model, image)
        rows.append((error, psnr))
        true = scene.inverse_depth[0]
        truth.append(np.corrcoef(surface.flatten(), true.flatten())[0, 1])
        error, psnr, surface = measure(model, image.flip(-2))
        flipped.append((error, psnr))
        flipped_truth.append(np.corrcoef(surface.flatten(), true.flip(-2).flatten())[0, 1])
    noise = torch.rand(40, 1, 3, side, side, generator=torch.Generator().manual_seed(0))
    noisy = np.array([measure(model, image)[:2] for image in noise])
    rows, flipped = np.array(rows), np.array(flipped)
    truth, flipped_truth = (np.array(t).clip(0.01, 0.99) for t in (truth, flipped_truth))
    weights = fit(
        np.concatenate([rows[::2], flipped[::2], noisy[::2]]),
        np.concatenate([truth[::2], flipped_truth[::2], np.full(len(noisy[::2]), 0.01)]),
    )

    def confidence(features):
        return 1 / (1 + np.exp(-(np.c_[np.ones(len(features)), features] @ weights)))

    check = confidence(rows[1::2])
    ranks = [np.argsort(np.argsort(values)) for values in (check, truth[1::2])]
    photos = PictureDataset([options.photos], side)
    wild = [measure(model, photos.batch([i])["image"])[:2] for i in range(options.count)]
    sure = check >= np.median(check)
    report = {
        "weights": [round(float(w), 3) for w in weights],
        "odd scenes: rank correlation of confidence and disparity correlation": round(
            float(np.corrcoef(*ranks)[0, 1]), 3
        ),
        "odd scenes: disparity correlation, surer half": round(float(truth[1::2][sure].mean()), 3),
        "odd scenes: disparity correlation, other half": round(float(truth[1::2][~sure].mean()), 3),
        "odd scenes: mean confidence": round(float(check.mean()), 3),
        "odd scenes upside down: disparity correlation": round(
            float(flipped_truth[1::2].mean()), 3
        ),
        "odd scenes upside down: mean confidence": round(
            float(confidence(flipped[1::2]).mean()), 3
        ),
        "photographs: mean confidence": round(float(confidence(np.array(wild)).mean()), 3),
        "noise: mean confidence": round(float(confidence(noisy[1::2]).mean()), 3),
    }
    print(json.dumps(report, indent=1))
    if options.report:
        options.report.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
