"""``unflat doctor``: says what this computer has and lacks; the text to paste into an issue."""

import importlib.util
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unflat.cli.options import Computed, Speech
from unflat.errors import UserError
from unflat.terminal import Terminal

EXTRAS = {
    "train": ("accelerate", "tensorboard"),
    "mesh": ("xatlas", "fast_simplification", "embreex"),
    "video": ("av",),
    "app": ("gradio", "viser"),
    "segment": ("rembg",),
    "fast": ("numba",),
    "diffusion": ("diffusers", "transformers"),
}
"""The extras of the package, and what each brings."""

_PICTURE = 64
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Computed):
    """Says what this computer has and lacks, and runs a self-test of some seconds."""


def run(options: Options, terminal: Terminal) -> int:
    """0 if the self-test passed, 1 if not."""
    from unflat.hub import MODELS, is_here
    from unflat.report import versions

    found = versions()
    terminal.line("  ".join(f"{name} {version}" for name, version in found.items()))
    machine = _machine()
    terminal.line("  ".join(f"{name} {value}" for name, value in machine.items()))
    missing = [name for name, modules in EXTRAS.items() if not all(map(_is_installed, modules))]
    models = [name for name in MODELS if is_here(name)]
    test = _self_test(options.device)
    terminal.line(f"self-test: {test['text']}")
    state = "ready" if test["passed"] and models else "not ready"
    terminal.line(
        f"{state}: {test['device']}, {machine['threads']} threads; "
        f"bundled model {', '.join(models) or 'missing'}; "
        f"missing extras: {', '.join(missing) or 'none'}"
    )
    if missing:
        terminal.line(f'to add them: pip install "unflat[{",".join(missing)}]"')
    terminal.object(
        "report",
        {
            "versions": found,
            "machine": machine,
            "models": models,
            "missing_extras": missing,
            "self_test": test,
        },
    )
    return 0 if test["passed"] else 1


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _machine() -> dict[str, Any]:
    """Device, threads, memory and disk, by name."""
    import torch

    machine: dict[str, Any] = {
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "free_disk_gib": round(shutil.disk_usage(Path.cwd()).free / _GIB, 1),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        machine["memory_gib"] = round(total / _GIB, 1)
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name(0)
        machine["cuda"] = torch.version.cuda
    return machine


def _self_test(device: str) -> dict[str, Any]:
    """Reconstruct the bundled photo and look at it from the side; never raises."""
    import torch

    from unflat.device import choose_device
    from unflat.hub import example_picture
    from unflat.systems.vq3d.pipeline import reconstruct_picture

    start = time.perf_counter()
    chosen = choose_device(device)
    test: dict[str, Any] = {"passed": False, "device": chosen}
    try:
        scene = reconstruct_picture(example_picture(), device=chosen)
        picture = scene.render(size=(_PICTURE, _PICTURE)).rgb
    except UserError as error:
        return {**test, "text": str(error)}
    seconds = time.perf_counter() - start
    if not bool(torch.isfinite(picture).all()) or float(picture.std()) < 1e-3:
        return {**test, "text": "the bundled photo gave an empty picture; please report this."}
    return {
        **test,
        "passed": True,
        "seconds": round(seconds, 2),
        "text": f"a photo became a scene in {seconds:.1f} s",
    }
