"""The cases of `benchmarks.gan_training`; each is measured in a process of its own."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.machine import CLOCKS, machine_facts
from benchmarks.plain_gan import PlainGan, PlainStep, plain_cast
from unflat.geometry import Camera, look_at
from unflat.rendering import Casting, cast
from unflat.systems.gan import eg3d, sdf_triplane
from unflat.systems.gan.game import camera_label, shown_made
from unflat.systems.gan.recipe import GanRecipe, Parts, Start
from unflat.systems.gan.terms import PathLengthTerm

RADIUS, FOCAL = 1.3, 131.25 / 128  # of SRN's cameras, world units and picture widths
SECONDS = 3.0  # of each way, if a few calls take no longer
LR = 0.0  # so that weights stay as they are; Adam takes as long with any
AGREEMENT = 1e-3  # of planes and logits, as a share of their largest
PICTURE_AGREEMENT = 0.005  # mean difference of colours in [0, 1]; samples lie elsewhere
MANY = 64  # samples of a ray in that comparison
PARTS = ("forward", "backward", "update")


class Watch:
    """Adds up the seconds of the parts of a step."""

    def __init__(self, clock: str):
        self.now = CLOCKS[clock]
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Seconds of what stands inside."""
        start = self.now()
        yield
        self.seconds[part] += self.now() - start


Step = Callable[[Watch], None]


class Size(NamedTuple):
    """What is trained."""

    config: eg3d.Config
    batch: int


def sizes() -> dict[str, Size]:
    """By the words of cases."""
    small = replace(eg3d.small(), start=Start())
    tiny = replace(eg3d.tiny(), start=Start())
    return {
        "tiny": Size(tiny, 4),
        "32": Size(small, 16),
        "64": Size(replace(small, resolution=64), 8),
    }


def measure(kind: str, size: str, options: Any) -> dict[str, Any]:
    """The figures of a case."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if kind == "facts":
        return _facts()
    return {"eg3d": _eg3d, "lazy": _lazy}[kind](size, options)


def _facts() -> dict[str, Any]:
    facts = machine_facts()
    with suppress(ImportError):
        import numba

        facts["versions"]["numba"] = numba.__version__  # of the fused rays on a CPU
    return facts


# ------------------------------------------------------------------------------------------- steps


def made_up(config: eg3d.Config | sdf_triplane.Config, count: int) -> dict[str, Tensor]:
    """Smooth pictures with masks, and cameras from all around, as the data set gives them."""
    draws = torch.Generator().manual_seed(0)
    noise = torch.rand(count, 4, 8, 8, generator=draws)
    smooth = functional.interpolate(noise, (config.resolution,) * 2, mode="bicubic").clamp(0, 1)
    batch = {"image": smooth[:, :3].contiguous(), "mask": smooth[:, 3:].contiguous()}
    for name in ("", "fake_"):
        direction = functional.normalize(torch.randn(count, 3, generator=draws), dim=-1)
        intrinsics = torch.tensor([FOCAL, FOCAL, 0.5, 0.5]).expand(count, 4)
        batch[f"{name}camera_to_world"] = look_at(RADIUS * direction)
        batch[f"{name}intrinsics"] = intrinsics
    return batch


def camera_of(batch: dict[str, Tensor], name: str) -> Camera:
    """The cameras of made-up pictures."""
    pose, intrinsics = batch[f"{name}camera_to_world"], batch[f"{name}intrinsics"]
    return Camera(camera_to_world=pose, intrinsics=intrinsics)


def our_step(system: str, config: Any, parts: Parts, batch: dict[str, Tensor]) -> Step:
    """A step of our recipe as the loop does it."""
    recipe = GanRecipe(system, config, parts)
    optimizer = torch.optim.Adam(recipe.networks.parameters(), lr=LR, betas=(0.0, 0.99))

    def step(watch: Watch) -> None:
        with watch("forward"):
            loss = recipe.step(batch, 0.5, torch.Generator().manual_seed(0))["loss"]
        with watch("backward"):
            loss.backward()
        with watch("update"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            recipe.after_step(0)

    return step


def plain_step(gan: PlainGan, batch: dict[str, Tensor], with_r1: bool) -> Step:
    """EG3D's step."""
    both = PlainStep(gan, LR)
    cameras = camera_of(batch, ""), camera_of(batch, "fake_")
    return lambda watch: both(batch["image"], *cameras, watch, with_r1=with_r1)


def with_r1(parts: Parts, is_on: bool) -> Parts:
    """The same parts; R1 in every step, or in none."""
    gamma = parts.game.r1_gamma if is_on else 0.0
    return replace(parts, game=replace(parts.game, r1_every=1, r1_gamma=gamma))


# ------------------------------------------------------------------------------------------- cases


def _eg3d(size: str, options: Any) -> dict[str, Any]:
    """EG3D in plain PyTorch and ours, with R1 in every step and without."""
    config, count = sizes()[size]
    both = replace(config, rays=replace(config.rays, keep="both"))
    batch = made_up(config, count)
    parts = replace(eg3d.build(config), terms=())
    works: dict[str, Step] = {}
    figures: dict[str, Any] = {"batch": count, "every": config.r1_every}
    for r1 in (False, True):
        for name, grouped in (("plain", False), ("grouped", True)):
            gan = PlainGan(parts, config, grouped=grouped)
            figures[f"{name} agrees"] = agreement(gan, batch)
            works[_named(name, r1)] = plain_step(gan, batch, r1)
        chosen = with_r1(parts, r1)
        works[_named("fine", r1)] = our_step("eg3d", config, chosen, batch)
        twice = replace(chosen, generator=_casting_both(chosen, config))
        works[_named("both", r1)] = our_step("eg3d", both, twice, batch)
    return figures | {"times": in_turns(works, options)}


def _named(name: str, r1: bool) -> str:
    return f"{name}, R1" if r1 else name


def _casting_both(parts: Parts, config: eg3d.Config) -> Any:
    """A generator with the same weights, whose pictures are made of both passes' samples."""
    generator = eg3d.build(replace(config, rays=replace(config.rays, keep="both"))).generator
    generator.load_state_dict(parts.generator.state_dict())
    return generator


def _lazy(size: str, options: Any) -> dict[str, Any]:
    """What R1 and path lengths cost in `sdf_triplane`: each in every step, or never."""
    preset = sdf_triplane.tiny if size == "tiny" else sdf_triplane.small
    config = replace(preset(), start=Start(), path_share=1.0)
    count = 4 if size == "tiny" else 16
    batch = made_up(config, count)
    parts = sdf_triplane.build(config)
    without = replace(
        parts, terms=tuple(term for term in parts.terms if not isinstance(term, PathLengthTerm))
    )
    works = {
        "neither": our_step("sdf_triplane", config, with_r1(without, False), batch),
        "R1": our_step("sdf_triplane", config, with_r1(without, True), batch),
        "path": our_step("sdf_triplane", config, with_r1(parts, False), batch),
        "both": our_step("sdf_triplane", config, with_r1(parts, True), batch),
    }
    shares = {"R1": 1 / config.r1_every, "path": preset().path_share}
    return {"batch": count, "shares": shares, "times": in_turns(works, options)}


@torch.no_grad()
def agreement(gan: PlainGan, batch: dict[str, Tensor]) -> dict[str, float]:
    """How far plain networks and ours are apart.

    Raises:
        AssertionError: too far: times would compare different things.
    """
    generator, camera = gan.generator, camera_of(batch, "fake_")
    count, config = len(batch["image"]), gan.config
    label = camera_label(camera)
    codes = generator.codes(torch.randn(count, generator.latent_dim), label)
    form = generator.form(codes)
    field: Any = form.field
    found = {"planes": _apart(gan.planes(codes), field.planes)}
    side = config.resolution // generator.scale
    seen = cast(field, camera, side, Casting(coarse=MANY, fine=MANY, keep="both"))
    features, opacity = plain_cast(field.planes, gan.body, camera, side, MANY, MANY)
    found["rays"] = float((features - seen.features).abs().mean())
    found["opacity"] = float((opacity - seen.opacity).abs().mean())
    shown = shown_made(gan.picture(codes, camera), gan.game.sees)
    found["logits"] = _apart(gan.judge(shown, label), gan.critic(shown, label))
    for name in ("planes", "logits"):
        assert found[name] < AGREEMENT, found
    for name in ("rays", "opacity"):
        assert found[name] < PICTURE_AGREEMENT, found
    assert float(seen.features.std()) > 2 * PICTURE_AGREEMENT, "there is nothing to compare"
    return found


def _apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max() / second.abs().max())


# ------------------------------------------------------------------------------------------ timing


def in_turns(works: dict[str, Step], options: Any) -> dict[str, dict[str, float]]:
    """The parts of the fastest call of every work; calls of all take turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in works}
    least = 1 if options.quick else 3
    for work in works.values():  # to warm up
        work(Watch(options.clock))
    gc.collect()
    begun = time.perf_counter()
    seconds = 0.0 if options.quick else SECONDS * len(works)
    while time.perf_counter() - begun < seconds or len(next(iter(found.values()))) < least:
        for name, work in works.items():
            watch = Watch(options.clock)
            work(watch)
            found[name].append(watch.seconds | {"whole": sum(watch.seconds.values())})
    return {name: _fastest(calls) for name, calls in found.items()}


def _fastest(calls: list[dict[str, float]]) -> dict[str, float]:
    best = min(calls, key=lambda call: call["whole"])
    middle = median(call["whole"] for call in calls)
    return best | {"median": middle, "calls": len(calls)}
