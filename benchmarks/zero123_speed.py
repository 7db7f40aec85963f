"""Seconds and memory of published Zero-1-to-3 networks in unflat, beside a plain loop of diffusers.

    python -m benchmarks.zero123_speed                  # full size, float32 on the CPU: minutes
    python -m benchmarks.zero123_speed --quick          # in miniature; writes nothing
    python -m benchmarks.zero123_speed --device cuda    # half precision and memory of a GPU as well

Networks have the published sizes and seeded random weights: time and memory do not depend on them,
and what two ways make of the same weights can be compared. **plain** is what a pipeline of
diffusers does: CLIP and the autoencoder see the picture once, then in every step the denoiser with
its cross-attention is asked for the told and the untold half in one batch, and `DDIMScheduler`
steps. **unflat** asks the same denoiser with cross-attention folded into constants. Both take the
same steps in turns, so that what disturbs the machine disturbs both; they share their weights.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import machine_facts
from benchmarks.process import ROOT, peak_mib, run_child
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.memory import memory_cost
from unflat.systems.zero123.model import denoise
from unflat.systems.zero123.published import Networks, PublishedViews
from unflat.systems.zero123.sampler import Sampler, sample
from unflat.systems.zero123.schedule import timesteps

RESULT = ROOT / "benchmarks" / "results" / "zero123-speed.json"
GUIDANCE = 3.0
SCALE = 0.18215


def networks(quick: bool) -> Networks:
    """Of the published sizes, or a tenth as wide; weights by seed, spread as layers begin."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    width, token = (32, 16) if quick else (320, 768)
    coder = 32 if quick else 128
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            in_channels=8,
            out_channels=4,
            block_out_channels=(width, 2 * width, 4 * width, 4 * width),
            cross_attention_dim=token,
            attention_head_dim=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(coder, 2 * coder, 4 * coder, 4 * coder),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        clip = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=64 if quick else 1024,
                intermediate_size=256 if quick else 4096,
                num_hidden_layers=2 if quick else 24,
                num_attention_heads=4 if quick else 16,
                patch_size=14,
                projection_dim=token,
            )
        )
        projection = nn.Linear(token + 4, token)
    generator = torch.Generator().manual_seed(0)
    for module in (unet, vae, clip, projection):
        _fill(module, generator)
    return Networks(unet=unet, vae=vae, clip=clip, projection=projection)


@torch.no_grad()
def _fill(module: nn.Module, generator: torch.Generator) -> None:
    nn.Module.to_empty(module, device="cpu")
    for value in module.parameters():
        if value.ndim > 1:
            spread = (3 / math.prod(value.shape[1:])) ** 0.5
            value.uniform_(-spread, spread, generator=generator)
        else:
            value.uniform_(-0.1, 0.1, generator=generator)
    for child in module.modules():
        if isinstance(child, nn.GroupNorm | nn.LayerNorm):
            child.weight.add_(1)
    for buffer in module.buffers():  # CLIP's numbers of places
        buffer.copy_(torch.arange(buffer.numel()).view(buffer.shape))
    module.eval().requires_grad_(False)


def shared(parts: Networks) -> Networks:
    """The same weights in modules of their own, so that attention can be folded in one."""
    held = {id(value): value for value in parts.unet.parameters()}
    return Networks(
        unet=copy.deepcopy(parts.unet, held),
        vae=parts.vae,
        clip=parts.clip,
        projection=parts.projection,
    )


def plain_loop(model: PublishedViews, told: dict[str, Tensor], noise: Tensor, steps: int) -> Any:
    """Steps as a pipeline of diffusers takes them; yields the latent after each."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.0120,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(steps, device=noise.device)
    token, picture = told["token"].to(model.dtype), told["picture"].to(model.dtype)
    tokens = torch.cat([torch.zeros_like(token), token])
    pictures = torch.cat([torch.zeros_like(picture), picture])
    latent = noise.to(model.dtype)
    for timestep in scheduler.timesteps:
        both = torch.cat([torch.cat([latent] * 2), pictures], dim=1)
        said = model.unet(both, timestep, encoder_hidden_states=tokens).sample
        null, condition = said.chunk(2)
        said = null + GUIDANCE * (condition - null)
        latent = scheduler.step(said, timestep, latent, eta=0.0).prev_sample
        yield latent


def our_loop(model: PublishedViews, told: Any, noise: Tensor, steps: int) -> Iterator[Tensor]:
    """The same steps by unflat's sampler."""

    def said(noisy: Tensor, timestep: Tensor) -> Any:
        return denoise(model, noisy, timestep, told, GUIDANCE)

    visited = timesteps(steps, "leading")
    for step in sample(said, model.schedule, noise, visited, Sampler(method="ddim", steps=steps)):
        yield step.latent


def timed(loop: Iterator[Tensor], device: str) -> tuple[float, Tensor]:
    """Seconds of the next step, and its latent."""
    _wait(device)
    start = time.perf_counter()
    latent = next(loop)
    _wait(device)
    return time.perf_counter() - start, latent


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def compare(parts: Networks, steps: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Both ways in turns: seconds, and how far apart they end."""
    for module in (parts.unet, parts.vae, parts.clip):
        nn.Module.to(module, device=device, dtype=dtype)
    parts.projection.to(device)
    plain = PublishedViews(parts, name="plain", plain_attention=True)
    ours = PublishedViews(shared(parts), name="unflat")
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1)).to(device)
    seeing: dict[str, Callable[[], Any]] = {
        "see the picture": lambda: ours.reference(image, image[:, 0]),
    }
    seconds: dict[str, Any] = {name: _seconds(work, device) for name, work in seeing.items()}
    reference = ours.reference(image, image[:, 0])
    pose = RelativePose.from_degrees(torch.tensor([30.0]), 10.0)
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(2)).to(device)
    loops = {
        "plain": plain_loop(plain, plain.condition(reference, pose).parts, noise, steps),
        "unflat": our_loop(ours, ours.condition(reference, pose), noise, steps),
    }
    times: dict[str, list[float]] = {name: [] for name in loops}
    latents: dict[str, Tensor] = {}
    for step in range(steps):
        for name in ("plain", "unflat") if step % 2 == 0 else ("unflat", "plain"):
            took, latents[name] = timed(loops[name], device)
            times[name].append(took)
        print(f"step {step + 1}:", {name: round(t[-1], 3) for name, t in times.items()}, flush=True)
    pictures = {name: ours.decode(latent.float()).image for name, latent in latents.items()}
    seconds["decode"] = _seconds(lambda: ours.decode(latents["unflat"]), device)
    first, second = (latent.float() for latent in latents.values())
    return {
        "steps": steps,
        "dtype": str(dtype).removeprefix("torch."),
        "seconds_a_step": {
            name: {"min": min(values), "median": median(values)} for name, values in times.items()
        },
        "seconds": seconds,
        "largest_difference": {
            "latent": float((first - second).abs().max()),
            "latent_std": float(first.std()),
            "picture": float((pictures["plain"] - pictures["unflat"]).abs().max()),
        },
        "foreseen": vars(memory_cost(ours)),
        "latent": latents["unflat"].float().cpu(),
        "picture": pictures["unflat"].clamp(0, 1).cpu(),
    }


def _seconds(work: Callable[[], Any], device: str) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


@torch.no_grad()
def on_gpu(parts: Networks, steps: int) -> dict[str, Any]:
    """Half precision beside whole, and the most memory that a view takes."""
    rows: dict[str, Any] = {"gpu": torch.cuda.get_device_name()}
    pictures = {}
    for dtype in (torch.float32, torch.float16):
        torch.cuda.reset_peak_memory_stats()
        found = compare(parts, steps, "cuda", dtype)
        pictures[dtype] = found.pop("picture")
        found.pop("latent")
        weights = sum(found["foreseen"][part] for part in ("denoiser", "clip", "autoencoder"))
        found["peak_beyond_weights_gb"] = (torch.cuda.max_memory_allocated() - weights) / 1e9
        rows[found["dtype"]] = found
    error = (pictures[torch.float16] - pictures[torch.float32]).square().mean()
    times = [rows[name]["seconds_a_step"]["unflat"]["min"] for name in ("float32", "float16")]
    rows["half"] = {"faster": times[0] / times[1], "psnr_db": float(-10 * torch.log10(error))}
    return rows


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All that this machine can tell."""
    start = time.perf_counter()
    parts = networks(options.quick)
    built = time.perf_counter() - start
    cpu = compare(parts, options.steps, "cpu", torch.float32)
    del cpu["picture"], cpu["latent"]
    cpu |= {"build_seconds": built, "peak_rss_gb": peak_mib() * 2**20 / 1e9}
    gpu: Any = "not measured: no CUDA device"
    if options.device == "cuda" and torch.cuda.is_available():
        gpu = on_gpu(parts, options.gpu_steps)
    return {**machine_facts(), "threads": torch.get_num_threads(), "cpu": cpu, "cuda": gpu}


def main() -> None:
    """Measure in a process of its own, print, write."""
    parser = argparse.ArgumentParser(description="Speed of published Zero-1-to-3 networks.")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--steps", type=int, default=4, help="on the CPU")
    parser.add_argument("--gpu-steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="in miniature; writes nothing")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        torch.set_num_threads(options.threads)
        print(json.dumps(measured(options)))
        return
    words = ["--child", "--device", options.device, "--steps", str(options.steps)]
    words += ["--gpu-steps", str(options.gpu_steps), "--threads", str(options.threads)]
    words += ["--quick"] if options.quick else []
    result = run_child("benchmarks.zero123_speed", words, options.threads)
    print(json.dumps(result, indent=1))
    if not options.quick:
        Path(RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
