import math

import pytest
import torch
from analytic_fields import SoftSpheres
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unflat.fields import FeatureDecoder, FieldOutput, TriplaneField, VoxelField
from unflat.geometry import Camera
from unflat.rendering import OccupancyGrid, RenderOptions, backends, render, render_rays

BOX = torch.tensor([[-1.0, -1.5, 2.0], [1.0, 0.5, 5.0]])
CELLS = torch.tensor([[[[0, 1], [0, 0], [1, 0]], [[0, 0], [1, 0], [0, 1]]]], dtype=torch.uint8)


class Counting:
    """A field that remembers how many points it was asked at, over all scenes."""

    def __init__(self, field):
        self.field, self.count = field, 0
        if hasattr(field, "bounds"):
            self.bounds = field.bounds

    def __call__(self, points, directions=None):
        self.count += points[..., 0].numel()
        return self.field(points, directions)


class Bumps:
    """Gaussian bumps of height 1, each scene its own; density changes by at most `steepest`."""

    def __init__(self, seed: int, scenes: int = 2, bumps: int = 3):
        generator = torch.Generator().manual_seed(seed)
        share = torch.rand(scenes, bumps, 3, generator=generator, dtype=torch.float64)
        self.centers = BOX[0] + share * (BOX[1] - BOX[0])
        self.widths = 0.05 + 0.2 * torch.rand(scenes, bumps, generator=generator)
        # exp(-r^2 / 2 w^2) is steepest at r = w: exp(-1/2) / w.
        self.steepest = float((math.exp(-0.5) / self.widths).sum(dim=1).max())
        self.bounds = BOX

    def __call__(self, points, directions=None):
        flat = points.flatten(1, -2)
        square = (flat[:, :, None] - self.centers[:, None].to(points)).square().sum(-1)
        widths = self.widths.to(points)[:, None]
        density = (
            torch.exp(-square / (2 * widths.square())).sum(-1).unflatten(1, points.shape[1:-1])
        )
        return FieldOutput(density, 0.5 + 0.5 * torch.sin(3 * points))


def voxels(batch=2) -> VoxelField:
    """Mostly empty: matter in some voxels only."""
    generator = torch.Generator().manual_seed(0)
    density = 8 * (torch.rand(batch, 6, 6, 6, generator=generator) - 0.9).clamp_min(0) * 10
    color = torch.rand(batch, 3, 6, 6, 6, generator=generator)
    return VoxelField(density, color, torch.tensor([[-1.5, -1.5, 2], [1.5, 1.5, 5]]))


def camera(batch=2) -> Camera:
    return Camera.from_fov(0.9, torch.eye(4).repeat(batch, 1, 1))


def full(batch, bounds, resolution=4, **kwargs) -> OccupancyGrid:
    cells = torch.ones(batch, *[resolution] * 3, dtype=torch.uint8)
    return OccupancyGrid(cells=cells, bounds=bounds, **kwargs)


# Where cells lie


@pytest.mark.parametrize("empty_outside", [False, True])
def test_a_point_belongs_to_the_cell_of_the_formula(empty_outside):
    grid = OccupancyGrid(cells=CELLS, bounds=BOX, empty_outside=empty_outside)
    generator = torch.Generator().manual_seed(0)
    spread = 1.4 * torch.rand(500, 3, generator=generator) - 0.2
    points = BOX[0] + spread * (BOX[1] - BOX[0])
    expected = []
    for point in points.tolist():
        index = []
        for axis, count in zip(range(3), (2, 3, 2), strict=True):
            low, high = BOX[0, axis].item(), BOX[1, axis].item()
            index.append(math.floor((point[axis] - low) / (high - low) * count))
        x, y, z = index
        inside = 0 <= x < 2 and 0 <= y < 3 and 0 <= z < 2
        expected.append(bool(CELLS[0, z, y, x]) if inside else not empty_outside)
    assert grid.at(points[None])[0].tolist() == expected
    assert {*expected} == {True, False}


def test_the_highest_faces_belong_to_the_last_cells():
    grid = OccupancyGrid(cells=CELLS, bounds=BOX, empty_outside=True)
    assert grid.at(BOX[1].expand(1, 1, 3)).tolist() == [[bool(CELLS[0, 1, 2, 1])]]
    far = torch.tensor([[[1e30, 0.0, 3.0], [torch.inf, 0.0, 3.0], [-1e30, 0.0, 3.0]]])
    assert not grid.at(far).any()


def test_every_scene_has_its_own_cells_and_one_grid_serves_many():
    cells = torch.cat([CELLS, 1 - CELLS])
    points = BOX[0] + torch.rand(2, 7, 5, 3) * (BOX[1] - BOX[0])
    both = OccupancyGrid(cells=cells, bounds=BOX).at(points)
    assert torch.equal(both[0], OccupancyGrid(cells=CELLS, bounds=BOX).at(points)[0])
    assert torch.equal(both[1], ~OccupancyGrid(cells=CELLS, bounds=BOX).at(points)[1])
    with pytest.raises(ValueError, match="2 scenes for 3"):
        OccupancyGrid(cells=cells, bounds=BOX).at(torch.zeros(3, 1, 3))


# What is found


def test_a_box_of_matter_is_found_with_its_neighbors_and_nothing_else():
    """Matter fills the cell (x, y, z) = (3, 5, 2) of 8 x 8 x 8, a bit of it."""

    def speck(points, directions=None):
        place = (points - BOX[0]) / (BOX[1] - BOX[0]) * 8
        low, high = place.new_tensor([3.1, 5.1, 2.1]), place.new_tensor([3.9, 5.9, 2.9])
        inside = ((place > low) & (place < high)).all(-1)
        return FieldOutput(inside.to(points), torch.ones_like(points))

    alone = OccupancyGrid.of(speck, BOX, resolution=8, dilation=0, chunk=100)
    assert alone.cells.nonzero().tolist() == [[0, 2, 5, 3]]
    wide = OccupancyGrid.of(speck, BOX, resolution=8)
    assert int(wide.cells.sum()) == 27
    assert wide.cells[0, 1:4, 4:7, 2:5].all()
    assert wide.fraction == pytest.approx(27 / 512)
    assert not wide.empty_outside, "the field does not say that it is bounded"


def test_a_cell_is_kept_above_the_threshold():
    """Density is x; parts of 16 cells in [-1, 1] have middles at odd multiples of 1 / 32."""

    def ramp(points, directions=None):
        return FieldOutput(points[..., 0].clamp_min(0), torch.ones_like(points))

    grid = OccupancyGrid.of(ramp, BOX, resolution=16, threshold=0.5, dilation=0)
    assert (grid.cells[0] == (torch.arange(16) >= 12)).all()  # from x = 0.5
    grid = OccupancyGrid.of(ramp, BOX, resolution=16, threshold=15.1 / 32, dilation=0)
    assert (grid.cells[0] == (torch.arange(16) >= 12)).all()
    grid = OccupancyGrid.of(ramp, BOX, resolution=16, threshold=14.9 / 32, dilation=0)
    assert (grid.cells[0] == (torch.arange(16) >= 11)).all()


def test_chunks_change_nothing():
    grids = [OccupancyGrid.of(Bumps(0), batch=2, resolution=9, chunk=c) for c in (1, 1000, 10**6)]
    assert 0.02 < grids[0].fraction < 0.9
    assert not torch.equal(grids[0].cells[0], grids[0].cells[1])
    for grid in grids[1:]:
        assert torch.equal(grid.cells, grids[0].cells)


def test_outside_is_empty_only_if_the_box_holds_all_of_a_bounded_field():
    field = voxels()
    assert OccupancyGrid.of(field, batch=2, resolution=4).empty_outside
    half = field.bounds.clone()
    half[1, 0] = 0
    assert not OccupancyGrid.of(field, half, batch=2, resolution=4).empty_outside
    with pytest.raises(ValueError, match="SoftSpheres has no bounds"):
        OccupancyGrid.of(SoftSpheres())


@pytest.mark.parametrize(
    "wrong", [{"resolution": 0}, {"points": 0}, {"dilation": -1}, {"threshold": -0.5}]
)
def test_a_number_that_is_too_small_is_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be at least"):
        OccupancyGrid.of(Bumps(0), batch=2, **wrong)


def test_a_grid_made_again_sees_what_came_into_an_empty_cell():
    field = voxels()
    before = OccupancyGrid.of(field, batch=2, resolution=12, dilation=0)
    assert before.fraction < 0.8
    field.density += 1
    after = OccupancyGrid.of(field, batch=2, resolution=12, dilation=0)
    assert after.fraction == 1


def test_a_grid_comes_back_from_its_tensors():
    grid = OccupancyGrid.of(Bumps(3), batch=2, resolution=7, threshold=0.02)
    tensors = grid.tensors()
    assert tensors["bits"].nbytes == math.ceil(2 * 7**3 / 8)
    back = OccupancyGrid.from_tensors(tensors)
    assert torch.equal(back.cells, grid.cells)
    assert torch.equal(back.bounds, grid.bounds)
    assert (back.empty_outside, back.threshold) == (grid.empty_outside, grid.threshold)
    tensors["bits"] = tensors["bits"][:5]
    with pytest.raises(ValueError, match="5 bytes do not hold 686 cells"):
        OccupancyGrid.from_tensors(tensors)


# What is left out


def rays_through(batch=2, count=24, seed=0):
    """Rays that cross the box, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(2, batch, count, 3, generator=generator, dtype=torch.float64)
    start, end = BOX[0] + share * (BOX[1] - BOX[0])
    directions = nn.functional.normalize(end - start, dim=-1)
    edges = torch.linspace(0.5, 6.5, 121, dtype=torch.float64).expand(batch, count, -1)
    return start - 3 * directions, directions, edges


@given(st.integers(0, 10**6), st.sampled_from([1e-3, 0.05, 0.3]))
@settings(max_examples=25)
def test_no_more_is_lost_than_is_stated(seed, threshold):
    """Optical depth up to (threshold + K h) L, and 1 - exp(-that) of a color."""
    field = Bumps(seed)
    grid = OccupancyGrid.of(field, batch=2, resolution=12, threshold=threshold, dilation=0)
    part = (BOX[1] - BOX[0]) / (2 * 12)
    most = threshold + field.steepest * float(part.norm()) / 2
    origins, directions, edges = rays_through(seed=seed)
    points = (
        origins[..., None, :]
        + 0.5 * (edges[..., 1:] + edges[..., :-1])[..., None] * (directions[..., None, :])
    )
    inside = ((points >= BOX[0]) & (points <= BOX[1])).all(-1)
    left_out = inside & ~grid.at(points)
    density = field(points).density
    assert (density[left_out] <= most).all()

    def clear(points, directions=None):  # bounded, as it says
        output = field(points)
        within = ((points >= BOX[0]) & (points <= BOX[1])).all(-1)
        return FieldOutput(torch.where(within, output.density, 0.0), output.features)

    whole = render_rays(clear, origins, directions, edges, opaque_last=False)
    less = render_rays(clear, origins, directions, edges, False, grid)
    lost = (density * left_out).sum(-1) * (edges[0, 0, 1] - edges[0, 0, 0])
    change = (whole.features - less.features).abs().amax(-1)
    assert (change <= 1 - torch.exp(-lost) + 1e-12).all()
    assert left_out.any()


def test_smooth_fields_lose_no_more_than_the_threshold_promises():
    """With one cell of dilation, in practice: K h is not reached."""
    for seed in range(8):
        field, threshold = Bumps(seed), 1e-3
        grid = OccupancyGrid.of(field, batch=2, resolution=24, threshold=threshold)
        points = BOX[0] + torch.rand(2, 20000, 3) * (BOX[1] - BOX[0])
        assert grid.fraction < 0.9
        assert field(points).density[~grid.at(points)].max() <= threshold


# Pictures


@pytest.mark.parametrize("opaque_last", [False, True])
@pytest.mark.parametrize("least_light", [0.0, 1e-3])
@pytest.mark.parametrize("make", [voxels, SoftSpheres])
def test_a_full_grid_gives_the_same_picture_bit_for_bit(make, opaque_last, least_light):
    field = make()
    bounds = torch.tensor([[-1.5, -1.5, 2], [1.5, 1.5, 5]])
    grid = full(2, bounds, empty_outside=make is voxels)
    options = {"samples": 20, "near": 1.0, "far": 7.0, "opaque_last": opaque_last}
    with backends.use("reference"):
        whole, gridded = (
            render(
                field,
                camera(),
                9,
                9,
                RenderOptions(**options, least_light=least_light, occupancy=occupancy),
            )
            for occupancy in (None, grid)
        )
    assert whole.rgb.std() > 0.05
    for one, two in zip(whole, gridded, strict=True):
        assert torch.equal(one, two)


def test_exact_grids_change_no_picture_and_ask_less():
    """Trilinear matter reaches one voxel far: a grid as fine, dilated, holds all of it."""
    field = voxels()
    grid = OccupancyGrid.of(field, batch=2, resolution=12, threshold=0.0, points=3)
    assert 0.1 < grid.fraction < 0.8
    pictures, asked = [], []
    for occupancy in (None, grid):
        counting = Counting(field)
        options = RenderOptions(
            samples=40, near=1.0, far=7.0, opaque_last=False, occupancy=occupancy, least_light=0.0
        )
        pictures.append(render(counting, camera(), 16, 16, options))
        asked.append(counting.count)
    assert asked[1] < 0.5 * asked[0]
    torch.testing.assert_close(pictures[0].rgb, pictures[1].rgb, atol=1e-6, rtol=0)
    torch.testing.assert_close(pictures[0].disparity, pictures[1].disparity, atol=1e-6, rtol=0)
    assert pictures[0].rgb.std() > 0.05


def test_light_that_is_left_takes_the_color_of_the_last_point():
    def colored(points, directions=None):
        return FieldOutput(torch.zeros_like(points[..., 0]), 0.5 + 0.1 * points[..., :3].sin())

    nothing = OccupancyGrid(
        cells=torch.zeros(1, 2, 2, 2, dtype=torch.uint8), bounds=BOX, empty_outside=True
    )
    counting = Counting(colored)
    with_grid = render(counting, camera(1), 6, 6, RenderOptions(samples=16, occupancy=nothing))
    assert counting.count == 36 + 1, "the last of every ray, and one in the block before"
    without = render(colored, camera(1), 6, 6, RenderOptions(samples=16))
    torch.testing.assert_close(with_grid.rgb, without.rgb, atol=1e-6, rtol=0)
    assert (with_grid.opacity == 1).all()
    assert without.rgb.std() > 0.01


def test_scenes_of_a_batch_are_as_if_alone():
    field = voxels(3)
    field.density[1] = 0
    grid = OccupancyGrid.of(field, batch=3, resolution=12)
    assert grid.cells[1].sum() == 0
    options = RenderOptions(samples=24, near=1.0, far=7.0, opaque_last=False, occupancy=grid)
    together = render(field, camera(3), 8, 8, options)
    for index in range(3):
        alone = VoxelField(
            field.density[index : index + 1], field.features[index : index + 1], field.bounds
        )
        cells = grid.cells[index : index + 1]
        own = OccupancyGrid(cells=cells, bounds=grid.bounds, empty_outside=True)
        picture = render(
            alone,
            camera(1),
            8,
            8,
            RenderOptions(samples=24, near=1.0, far=7.0, opaque_last=False, occupancy=own),
        )
        torch.testing.assert_close(together.rgb[index], picture.rgb[0], atol=1e-6, rtol=0)
    assert together.rgb[0].std() > 0.05


def test_gradients_pass_where_matter_is():
    torch.manual_seed(0)
    planes = nn.Parameter(torch.randn(1, 3, 8, 16, 16))
    field = TriplaneField(planes, FeatureDecoder(8, hidden=16), bounds=BOX)
    origins, directions, edges = (every[:1].float() for every in rays_through(1))

    def gradients(occupancy):
        planes.grad = None
        light = render_rays(field, origins, directions, edges, False, occupancy)
        light.features.square().sum().backward()
        return planes.grad.clone()

    with backends.use("reference"):
        whole = gradients(None)
        assert whole.abs().sum() > 1
        torch.testing.assert_close(gradients(full(1, BOX, empty_outside=True)), whole)
        half = full(1, BOX)
        half.cells[:, :, :, :2] = 0  # nothing at x < 0
        left = gradients(half)
    # Column u of plane XY is x: texels well below 0 are not asked for.
    assert (left[:, 0, :, :, :7] == 0).all()
    assert left[:, 0, :, :, 9:].abs().sum() > 1
