"""Which parts of a box hold matter, so that rays need not ask the field about the rest.

    grid = OccupancyGrid.of(field, resolution=64)              # a field with bounds
    picture = render(field, camera, 64, 64, RenderOptions(occupancy=grid, opaque_last=False))

What is left out is bounded. If all density that the grid leaves out is at most ``threshold``, a ray
that crosses a length L of empty cells loses at most threshold L of optical depth, and its color, in
[0, 1], changes by at most 1 - exp(-threshold L): light is absorbed at random places, and two
pictures differ only where the first of them lies in what was left out.

A grid is a picture of the field at one moment: make a new one when the field has changed, and from
all of the field, so that cells that were empty can fill again.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from unflat.fields.field import Bounded, Field


@dataclass(frozen=True, kw_only=True, eq=False)
class OccupancyGrid:
    """Cells of a box that may hold matter, one grid for each scene of a batch."""

    cells: UInt8[Tensor, "batch z y x"]
    """1 where matter may be, else 0. A point lies in cell floor((x - lowest) / (highest - lowest)
    cells) along each axis; the highest face belongs to the last cell. One scene serves a batch of
    any size."""
    bounds: Float[Tensor, "2 3"]
    """Lowest and highest corner, world units."""
    empty_outside: bool = False
    """Nothing is outside the box, so the field is not asked there; else it always is."""
    threshold: float = 0.0
    """Density up to which a cell counted as empty, per unit of the field's length."""

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        field: Field,
        bounds: Float[Tensor, "2 3"] | None = None,
        *,
        batch: int = 1,
        resolution: int = 64,
        threshold: float = 1e-3,
        points: int = 2,
        dilation: int = 1,
        chunk: int = 1 << 18,
    ) -> "OccupancyGrid":
        """The grid of a field, found by asking it at the middles of ``points``^3 parts of a cell.

        A cell is empty if no density above the threshold was found in it or in its neighbors. If
        the density changes by at most K per unit of length, an empty cell holds at most
        threshold + K h, with h the half diagonal of a part: no point is farther from one where the
        field was asked. Dilation is for fields with steps, which have no such K: a surface that
        slips between the points of one cell is mostly found in the next.

        Args:
            field: of ``batch`` scenes.
            bounds: lowest and highest corner of the box; the field's own if absent.
            batch: scenes of the field.
            resolution: cells along each side.
            threshold: at least 0; see the class. The default changes colors by less than one
                step in 255 where a ray sees up to 3.9 units of empty cells.
            points: along each side of a cell.
            dilation: cells by which what was found is made larger, all around.
            chunk: points asked at once, over all scenes: memory, never the result.

        Raises:
            ValueError: no bounds are given and the field has none; a number is too small.
        """
        for name, value, least in (
            ("resolution", resolution, 1),
            ("points", points, 1),
            ("dilation", dilation, 0),
            ("threshold", threshold, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        own = field.bounds if isinstance(field, Bounded) else None
        box = own if bounds is None else bounds
        if box is None:
            raise ValueError(f"{type(field).__name__} has no bounds of its own: give a box")
        most = _most_density(field, box, batch, resolution, points, chunk)
        found = (most > threshold).to(torch.float32)
        if dilation:
            found = functional.max_pool3d(found[:, None], 2 * dilation + 1, 1, dilation)[:, 0]
        covered = own is not None and bool((box[0] <= own[0]).all() and (box[1] >= own[1]).all())
        return cls(
            cells=found.to(torch.uint8), bounds=box, empty_outside=covered, threshold=threshold
        )

    @property
    def fraction(self) -> float:
        """Share of the cells that may hold matter, in [0, 1]."""
        return float(self.cells.to(torch.float32).mean())

    def at(self, points: Float[Tensor, "batch *points 3"]) -> Bool[Tensor, " batch *points"]:
        """Whether matter may be at world points.

        Raises:
            ValueError: the grid is of another number of scenes, and not of one.
        """
        batch, shape = points.shape[0], points.shape[1:-1]
        if self.cells.shape[0] not in (1, batch):
            raise ValueError(f"a grid of {self.cells.shape[0]} scenes for {batch} scenes")
        counts = self.cells.shape[3], self.cells.shape[2], self.cells.shape[1]
        size = points.new_tensor(counts)
        place = (points.flatten(1, -2) - self.bounds[0]) / (self.bounds[1] - self.bounds[0]) * size
        inside = ((place >= 0) & (place <= size)).all(dim=-1)
        # Clamped before rounding: far points would overflow an integer.
        x, y, z = torch.minimum(place.clamp_min(0), size - 1).long().unbind(-1)
        flat = (z * counts[1] + y) * counts[0] + x
        held = self.cells.flatten(1).expand(batch, -1).gather(1, flat) > 0
        held = held & inside if self.empty_outside else held | ~inside
        return held.unflatten(1, shape)

    def to(self, device: torch.device | str) -> "OccupancyGrid":
        """The same grid on another device."""
        return replace(self, cells=self.cells.to(device), bounds=self.bounds.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """Everything as tensors for a file, eight cells in a byte."""
        bits = np.packbits(self.cells.cpu().numpy().reshape(-1))
        return {
            "bits": torch.from_numpy(bits),
            "shape": torch.tensor(self.cells.shape),
            "bounds": self.bounds.cpu(),
            "empty_outside": torch.tensor(self.empty_outside),
            "threshold": torch.tensor(self.threshold, dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "OccupancyGrid":
        """The grid that `tensors` was called on, on the CPU.

        Raises:
            ValueError: there are fewer bits than cells.
        """
        shape: Int64[Tensor, " 4"] = tensors["shape"]
        count, bits = int(shape.prod()), tensors["bits"].numpy()
        if 8 * bits.size < count:
            raise ValueError(f"{bits.size} bytes do not hold {count} cells")
        cells = torch.from_numpy(np.unpackbits(bits, count=count))
        return cls(
            cells=cells.reshape(shape.tolist()),
            bounds=tensors["bounds"],
            empty_outside=bool(tensors["empty_outside"]),
            threshold=float(tensors["threshold"]),
        )


def _most_density(
    field: Field, bounds: Tensor, batch: int, resolution: int, points: int, chunk: int
) -> Float[Tensor, "batch z y x"]:
    """Highest density found in every cell."""
    from unflat.rendering import backends  # which know of grids themselves

    device, dtype = bounds.device, bounds.dtype
    places = (torch.arange(points, device=device, dtype=dtype) + 0.5) / points
    within = torch.cartesian_prod(places, places, places).reshape(-1, 3)
    side = (bounds[1] - bounds[0]) / resolution
    step = max(1, chunk // (len(within) * batch))
    parts: list[Tensor] = []
    for start in range(0, resolution**3, step):
        cell = torch.arange(start, min(start + step, resolution**3), device=device)
        z, y, x = cell // resolution**2, cell // resolution % resolution, cell % resolution
        corner = torch.stack([x, y, z], dim=-1).to(dtype)
        asked = bounds[0] + (corner[:, None] + within) * side
        density = backends.ask(field, asked.expand(batch, -1, -1, -1)).density
        parts.append(density.to(dtype).amax(dim=-1))
    return torch.cat(parts, dim=1).unflatten(1, (resolution, resolution, resolution))
