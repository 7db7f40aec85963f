"""How many pictures a second every metric takes, and that memory stays flat over many.

    python -m benchmarks.metrics_speed                 # all, some minutes: writes the result
    python -m benchmarks.metrics_speed --only kid      # cases whose name starts so; prints only
    python -m benchmarks.metrics_speed --quick         # few repetitions, short streams; prints only
    python -m benchmarks.metrics_speed --clock cpu --threads 1     # where other programs run, too

Every case runs in a process of its own, so that its peak of memory is its own. Networks have drawn
weights, which take as long as trained ones. Streams are measured at two lengths: what is kept does
not grow if both have the same peak.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.process import peak_mib
from benchmarks.speed import facts

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "metrics-speed.json"
SIZES = (64, 128)
DIMS = (256, 2048)
BATCH = 16  # pictures at once
SET = 5000  # features of a side, for what compares whole sets
STREAM = 50_000
QUICK = 20  # times fewer, with --quick
PATIENCE = 4.0  # seconds of one case
IMAGE = ("psnr", "psnr_masked", "ssim", "ssim_uniform")
DEPTH = (
    "disparity_correlation",
    "scale_and_shift_invariant_error",
    "absolute_relative_error",
    "delta_accuracy",
    "standardized_depth_error",
    "scale_invariant_depth_error",
    "ordinal_accuracy",
    "non_flatness_score",
    "normals_and_angle",
)
VIEWS = ("reprojection_error", "forward_backward_cycle")
NETWORKS = ("unflat_features", "lpips_alex", "lpips_vgg", "inception_features")
SETS = ("frechet_distance", "kid", "precision_recall", "density_coverage")


def names() -> list[str]:
    """Every case: what it measures, and the side of pictures or the length of features."""
    pictures = [f"{name}:{size}" for name in (*IMAGE, *DEPTH, *VIEWS, *NETWORKS) for size in SIZES]
    gathering = [f"{name}:{dim}" for name in ("moments", "sample") for dim in DIMS]
    sets = [f"{name}:{dim}" for name in SETS for dim in DIMS]
    streams = [
        f"stream_{name}:{count}"
        for name in ("features", "pictures")
        for count in (STREAM // 10, STREAM)
    ]
    return [*pictures, *gathering, *sets, "inception_score:1008", *streams]


def prepare(name: str, quick: bool) -> tuple[Callable[[], object], int]:
    """The work of a case, and how many pictures (or feature vectors) it covers."""
    import torch

    torch.manual_seed(0)
    kind, number = name.split(":")
    size = int(number)
    if kind.startswith("stream_"):
        count = size // QUICK if quick else size
        return (lambda: _stream(kind, count)), count
    if kind in ("moments", "sample", *SETS, "inception_score"):
        return _over_features(kind, size, SET // QUICK if quick else SET)
    if kind in NETWORKS:
        return _network(kind, size), BATCH
    return _over_pictures(kind, size), BATCH


def _over_pictures(kind: str, side: int) -> Callable[[], object]:
    import torch

    from unflat import metrics
    from unflat.geometry import Camera, orbit_pose

    image, other = torch.rand(2, BATCH, 3, side, side)
    depth, true = 2 + torch.rand(2, BATCH, side, side)
    here, there = (
        Camera.from_fov(0.8, orbit_pose(torch.tensor(0.1), torch.tensor(a), torch.tensor(2.5)))
        for a in (0.0, 0.1)
    )
    if kind == "psnr_masked":
        mask = torch.rand(BATCH, 1, side, side) > 0.5
        return lambda: metrics.psnr(image, other, mask)
    if kind == "normals_and_angle":
        return lambda: metrics.mean_angle_deviation(
            metrics.normals_from_depth(depth, here), metrics.normals_from_depth(true, here)
        )
    if kind == "reprojection_error":
        return lambda: metrics.reprojection_error(image, depth, here, other, true, there)
    if kind == "forward_backward_cycle":
        return lambda: metrics.forward_backward_cycle(image, 1 / depth, here, there)
    if kind == "non_flatness_score":
        return lambda: metrics.non_flatness_score(1 / depth)
    metric = getattr(metrics, kind)
    return (lambda: metric(image, other)) if kind in IMAGE else (lambda: metric(depth, true))


def _network(kind: str, side: int) -> Callable[[], object]:
    import torch

    from unflat.metrics import InceptionFeatures, Lpips
    from unflat.nn.alexnet import AlexNet
    from unflat.nn.feature_net import FeatureNet
    from unflat.nn.inception import FidInception
    from unflat.nn.vgg import Vgg16

    image, other = torch.rand(2, BATCH, 3, side, side)
    if kind == "unflat_features":
        return _without_gradient(FeatureNet().eval(), image)
    if kind == "inception_features":
        return _without_gradient(InceptionFeatures(FidInception(), "drawn"), image)
    trunk = AlexNet() if kind == "lpips_alex" else Vgg16()
    heads = [torch.rand(channels) for channels in trunk.channels]
    return _without_gradient(Lpips(trunk, heads, name=kind).eval(), image, other)


def _without_gradient(function: Callable[..., object], *inputs: Any) -> Callable[[], object]:
    import torch

    def work() -> object:
        with torch.no_grad():
            return function(*inputs)

    return work


def _over_features(kind: str, dim: int, count: int) -> tuple[Callable[[], object], int]:
    import torch

    from unflat import metrics

    if kind == "inception_score":
        probabilities = torch.randn(count, dim).softmax(1)
        return (lambda: metrics.inception_score(probabilities)), count
    a = torch.randn(count, dim)
    if kind == "moments":
        return (lambda: _add_all(metrics.FeatureMoments(dim), a)), count
    if kind == "sample":
        return (lambda: _add_all(metrics.FeatureSample(count // 5), a)), count
    b = torch.randn(count, dim) + 0.1
    if kind == "frechet_distance":
        first, second = (_add_all(metrics.FeatureMoments(dim), x) for x in (a, b))
        return (lambda: metrics.frechet_distance(first, second)), count
    metric = getattr(metrics, kind)
    return (lambda: metric(a, b)), count


def _add_all(gatherer: Any, features: Any) -> Any:
    for part in features.split(64):
        gatherer.add(part)
    return gatherer


def _stream(kind: str, count: int) -> None:
    """Pictures or features that are made as they are asked for, and dropped at once."""
    import torch

    from unflat.metrics import FeatureMoments, FeatureSample, psnr, ssim
    from unflat.nn.feature_net import FeatureNet

    generator = torch.Generator().manual_seed(0)
    network = FeatureNet().eval()
    dim = DIMS[-1] if kind == "stream_features" else network.dim
    moments, sample = FeatureMoments(dim), FeatureSample(1000)
    scores, done = torch.zeros(2, dtype=torch.float64), 0
    while done < count:
        batch = min(64, count - done)
        if kind == "stream_features":
            features = torch.randn(batch, dim, generator=generator)
        else:
            images = torch.rand(batch, 3, SIZES[0], SIZES[0], generator=generator)
            noisy = images + 0.1 * torch.randn(images.shape, generator=generator)
            scores += torch.stack([psnr(noisy, images).sum(), ssim(noisy, images).sum()])
            with torch.no_grad():
                features = network(images)
        moments.add(features)
        sample.add(features)
        done += batch


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs in the child: seconds, pictures a second, and the process's peak of memory."""
    import torch

    torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    work, count = prepare(name, options.quick)
    before = peak_mib()
    once = name.startswith("stream_")
    seconds: list[float] = []
    begun = clock()
    if not once:
        work()  # a first call pays for imports and memory
    while not seconds or (not once and clock() - begun < PATIENCE and len(seconds) < 20):
        start = clock()
        work()
        seconds.append(clock() - start)
        if options.quick:
            break
    return {
        "items": count,
        "seconds_min": min(seconds),
        "seconds_median": median(seconds),
        "items_per_second": round(count / min(seconds), 1),
        "repetitions": len(seconds),
        "peak_mib": round(peak_mib(), 1),
        "before_mib": round(before, 1),
    }


def in_child(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What `measure` gives, from a fresh process."""
    command = [sys.executable, "-m", "benchmarks.metrics_speed", "--case", name]
    command += ["--clock", options.clock, "--threads", str(options.threads)]
    command += ["--quick"] if options.quick else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics_speed", description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--only", default="", help="cases whose name starts so")
    parser.add_argument("--quick", action="store_true", help="once each, short streams")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what is counted")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options)))
        return
    chosen = [name for name in names() if name.startswith(options.only)]
    if not chosen:
        raise SystemExit(f"--only {options.only}: no case starts so; there are {names()}")
    result = facts(options)
    result["command"] = result["command"].replace("benchmarks.speed", "benchmarks.metrics_speed")
    result |= {"batch": BATCH, "set": SET, "cases": {}}
    for number, name in enumerate(chosen, 1):
        print(f"{number}/{len(chosen)} {name}", end=" ", flush=True)
        case = in_child(name, options)
        print(f"{case['items_per_second']:,.0f} /s, {case['peak_mib']:.0f} MiB")
        result["cases"][name] = case
    if options.only or options.quick:
        return
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
