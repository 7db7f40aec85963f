"""Pictures of docs/ablations.md: what pointwise and accumulated depth make of the same photos.

    python -m benchmarks.ablation_pictures --data DIR      # after python -m benchmarks.ablation

``ablation-depth.png``: canonical view, disparity, termination std and a novel view, models without
the slab; ``ablation-depth-slab.png``: the same with it; ``ablation-rays.png``: where light ends
along the rays of one row.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.ablation import Options, data_folder, load_drawn, read_pictures
from unflat.errors import UserError
from unflat.evaluation.vq3d import options_for
from unflat.rendering.quadrature import weights
from unflat.rendering.render import render
from unflat.systems.vq3d import Autoencoder, render_canonical
from unflat.systems.vq3d.views import novel_cameras

SHOWN = (24, 40)  # of the held-out pictures: large plain things, a pot and a sofa
ROW_OF = 0  # which of them the rays are drawn for
TURN = 0.3  # radians about the vertical axis through the pivot
SIDE = 64  # pixels that are rendered; the field's planes have 32
SAMPLES = 96
DPI = 72
STD_LIMIT = 0.35  # brightest in the std map; half of the light nearest, half farthest is 0.5
TITLES = ("input", "canonical", "disparity", "termination std", f"turned by {TURN} rad")
FORMS = ("pointwise", "accumulated")


@torch.no_grad()
def panels(model: Autoencoder, image: Tensor, teacher: Tensor) -> list[Tensor]:
    """Canonical view, disparity, termination std and novel view of one picture (batch of 1)."""
    field = model.field(model.decode(model.encode(image).quantized.tokens))
    rgb, disparity, variance = render_canonical(field, SIDE, SAMPLES)
    frame = model.frame
    inverse_depth = frame.d_far + (frame.d_near - frame.d_far) * teacher[:, 0]
    turn = torch.tensor([[0.0, TURN, 0.0]])
    _, camera = novel_cameras(frame.focal_assumed, inverse_depth, turn)
    novel = render(field, camera, SIDE, SIDE, options_for(frame, SAMPLES)).rgb
    return [rgb[0].clamp(0, 1), disparity[0, 0], variance[0, 0].sqrt(), novel[0].clamp(0, 1)]


def draw_depth(models: Path, suffix: str, held: dict[str, Tensor], path: Path) -> None:
    """Two pictures, each with both forms of the depth term, side by side."""
    rows = [(place, form) for place in SHOWN for form in FORMS]
    figure, grid = _cells(len(rows), len(TITLES))
    loaded = {form: load_drawn(models, f"{form}{suffix}") for form in FORMS}
    for axes, (place, form) in zip(grid, rows, strict=True):
        image, teacher = held["image"][place : place + 1], held["disparity"][place : place + 1]
        shown = [image[0], *panels(loaded[form], image, teacher)]
        for axis, picture, title in zip(axes, shown, TITLES, strict=True):
            _show(axis, picture, STD_LIMIT if title == "termination std" else 1.0)
            if (place, form) == rows[0]:
                axis.set_title(title, fontsize=10)
            if title == "termination std":
                axis.set_xlabel(f"mean {picture.mean():.3f}", fontsize=8, labelpad=2)
        axes[0].set_ylabel(form, fontsize=10)
    _save(figure, path)


@torch.no_grad()
def draw_rays(models: Path, held: dict[str, Tensor], path: Path) -> None:
    """Weights along the rays of the middle row, and the teacher's surface there."""
    place = SHOWN[ROW_OF]
    image, teacher = held["image"][place : place + 1], held["disparity"][place, 0]
    side = image.shape[-1]
    figure, grid = plt.subplots(2, 2, figsize=(9.2, 5.2), sharex=True, sharey=True)
    across = (torch.arange(side) + 0.5) / side * 2 - 1
    row = side // 2
    edges = torch.linspace(1, 0, SAMPLES + 1)
    middles = 0.5 * (edges[1:] + edges[:-1])
    for axes, suffix, slab in zip(grid, ("-bare", ""), ("no slab", "slab"), strict=True):
        for axis, form in zip(axes, FORMS, strict=True):
            model = load_drawn(models, f"{form}{suffix}")
            field = model.field(model.decode(model.encode(image).quantized.tokens))
            density, _ = field.on_grid(across[row : row + 1], across, middles)
            lengths = -edges.diff().expand_as(density)
            light = weights(density, lengths, opaque_last=True)[0, 0]  # side n
            shown = light.flip(-1).T.numpy() * SAMPLES
            axis.imshow(
                np.sqrt(shown), origin="lower", extent=(0, side, 0, 1), aspect="auto",
                cmap="magma", vmin=0, vmax=np.sqrt(SAMPLES / 3),
            )  # fmt: skip
            axis.step(
                np.arange(side + 1), [*teacher[row].tolist(), teacher[row, -1].item()],
                where="post", color="#7fd6ff", linewidth=1,
            )  # fmt: skip
            axis.set_title(f"{form}, {slab}", fontsize=10)
    for axis in grid[:, 0]:
        axis.set_ylabel("normalised disparity", fontsize=8)
    for axis in grid[1]:
        axis.set_xlabel("pixel of the middle row", fontsize=8)
    figure.tight_layout(pad=0.6)
    _save(figure, path)


def draw(models: Path, folder: Path, held: dict[str, Tensor]) -> None:
    """All pictures, from the models that the benchmark kept."""
    mpl.use("Agg")
    draw_depth(models, "-bare", held, folder / "ablation-depth.png")
    draw_depth(models, "", held, folder / "ablation-depth-slab.png")
    draw_rays(models, held, folder / "ablation-rays.png")


def _cells(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """Axes of whole pixels, two for each that is rendered: sharp, and small as a file."""
    cell, gap, left, top, below = 2 * SIDE, 6, 20, 20, 16
    width, height = left + columns * (cell + gap), top + rows * (cell + below)
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    return figure, [
        [
            figure.add_axes(
                (
                    (left + column * (cell + gap)) / width,
                    1 - (top + row * (cell + below) + cell) / height,
                    cell / width,
                    cell / height,
                )
            )
            for column in range(columns)
        ]
        for row in range(rows)
    ]


def _show(axis: Axes, picture: Tensor, limit: float) -> None:
    if picture.ndim == 3:
        axis.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
    else:
        axis.imshow(picture.numpy(), cmap="inferno", vmin=0, vmax=limit, interpolation="nearest")
    axis.set_frame_on(False)
    axis.set_xticks([])
    axis.set_yticks([])


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI, pil_kwargs={"optimize": True})
    plt.close(figure)
    print(path)


def main(options: Options) -> None:
    """The pictures alone, from kept models."""
    held, _, _ = read_pictures(data_folder(options), options)
    draw(options.models, options.pictures, held)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except UserError as error:
        sys.exit(str(error))
