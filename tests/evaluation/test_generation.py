import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unflat.errors import UserError
from unflat.evaluation import FlatPictures, GeneratedViews, Generator, PictureStream
from unflat.evaluation.generation import evaluate_generation, frechet_name
from unflat.evaluation.load import real_and_inputs
from unflat.geometry.camera import Camera
from unflat.geometry.trajectory import turn_about_pivot
from unflat.metrics import psnr

SIDE = 24
ANGLES = (0.0, -30.0, 30.0)


class Means:
    """Features that can be computed by hand: mean color, and contrast of each channel."""

    name, sha256, dim, has_probabilities = "means", "0" * 64, 6, False

    def describe(self):
        return {"name": self.name, "sha256": self.sha256}

    def __call__(self, images):
        flat = images.flatten(2)
        return torch.cat([flat.mean(2), flat.std(2)], dim=1) * 4


class Brightness(Means):
    """Tells dark pictures from bright ones, under the name of the network that may say FID."""

    name, has_probabilities = "inception", True

    def probabilities_of(self, features):
        bright = torch.sigmoid(3 * (features[:, :3].mean(1) - 2))
        return torch.stack([bright, 1 - bright], 1)

    def probabilities(self, images):
        return self.probabilities_of(self(images))


class Noisy:
    """The pictures of a stream with noise that grows with the angle; depth of a wall at 1."""

    name = "noisy"

    def __init__(self, pictures, noise):
        self.pictures, self.noise = pictures, noise

    @property
    def count(self):
        return len(self.pictures)

    @property
    def rejects(self):
        return self.pictures.rejects

    def describe(self):
        return {"noise": self.noise}

    def generate(self, indices, angles_deg, side):
        names, numbers, images = self.pictures.batch(indices)
        views = []
        for angle in angles_deg:
            generator = torch.Generator().manual_seed(len(views))
            noise = torch.randn(images.shape, generator=generator)
            views.append((images + self.noise * abs(angle) / 30 * noise).clamp(0, 1))
        return GeneratedViews(names=names, numbers=numbers, images=torch.stack(views, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty smooth pictures and one file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(40):
        coarse = Image.fromarray(generator.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        coarse.resize((30, 30), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def streams(folder):
    return real_and_inputs([folder], [], SIDE)


@pytest.fixture(scope="module")
def evaluation(streams):
    real, inputs = streams
    return evaluate_generation(
        Noisy(inputs, 0.5), real, Means(), references=[FlatPictures(inputs)], seed=1
    )


def test_the_halves_of_a_set_share_no_picture(streams):
    real, inputs = streams
    names = [{stream.read(i)[0] for i in range(len(stream) - 1)} for stream in streams]
    assert not names[0] & names[1]
    assert len(real) + len(inputs) == 41


def test_pictures_that_are_alone_in_their_class_are_shared_out(tmp_path):
    for name in [*"abcdef", "pair"]:
        (tmp_path / name).mkdir()
        for copy in range(2 if name == "pair" else 1):
            Image.new("RGB", (SIDE, SIDE)).save(tmp_path / name / f"{copy}.png")
    real, inputs = real_and_inputs([tmp_path], [], SIDE)
    assert len(real) == len(inputs) == 4
    assert all("pair" in {stream.label(i) for i in range(4)} for stream in (real, inputs))


def test_noise_that_grows_with_the_angle_moves_the_distances_in_order(evaluation):
    figures = evaluation.figures["noisy"]
    distances = [figures[f"kid-means_{angle}"] for angle in ("canonical", "5", "15", "30")]
    assert distances == sorted(distances)
    floor = evaluation.figures["real, one half against the other"]
    assert abs(figures["kid-means_canonical"]) < 5 * floor["kid-means_canonical_error"] + 0.05
    assert distances[-1] > 10 * abs(distances[0])
    moments = [figures[f"frechet-means20-debug_{angle}"] for angle in ("canonical",)]
    assert moments[0] < figures["frechet-means40-debug_30"]


def test_without_turning_the_flat_reference_is_its_pictures(evaluation, streams):
    flat = evaluation.figures["flat"]["kid-means_canonical"]
    assert flat == pytest.approx(evaluation.figures["noisy"]["kid-means_canonical"], abs=1e-9)
    made = FlatPictures(streams[1]).generate([0, 1], (0.0,), SIDE)
    torch.testing.assert_close(made.images[0, 0], streams[1].read(0)[1])


def test_a_card_is_seen_where_geometry_says(streams):
    """Points of each turned view, carried by its inverse depth, lie on the plane z = 1."""
    generator = FlatPictures(streams[1])
    assert isinstance(generator, Generator)
    made = generator.generate([0], ANGLES, SIDE)
    focal = made.camera.intrinsics[0, 0, 0].item()
    across = ((torch.arange(SIDE) + 0.5) / SIDE - 0.5) / focal
    grid = torch.stack(torch.meshgrid(across, across, indexing="xy"), -1)
    rays = torch.cat([grid, torch.ones(SIDE, SIDE, 1)], -1)
    for view, angle in enumerate(ANGLES):
        points = rays / made.inverse_depth[0, view, ..., None]
        pose = turn_about_pivot(torch.tensor(math.radians(angle)), torch.tensor(0.0), 1.0)
        world = points @ pose[:3, :3].T + pose[:3, 3]
        torch.testing.assert_close(world[..., 2], torch.ones(SIDE, SIDE), atol=1e-5, rtol=0)
        torch.testing.assert_close(made.camera.camera_to_world[0, view], pose)


def test_a_turned_card_shows_the_picture_foreshortened(streams):
    """A view from the right: each pixel's color is that of the card where its ray ends."""
    made = FlatPictures(streams[1]).generate([3], ANGLES, SIDE)
    image, view = made.images[0, 0], 2
    focal = made.camera.intrinsics[0, 0, 0].item()
    across = ((torch.arange(SIDE) + 0.5) / SIDE - 0.5) / focal
    grid = torch.stack(torch.meshgrid(across, across, indexing="xy"), -1)
    points = (
        torch.cat([grid, torch.ones(SIDE, SIDE, 1)], -1) / made.inverse_depth[0, view, ..., None]
    )
    pose = made.camera.camera_to_world[0, view]
    world = points @ pose[:3, :3].T + pose[:3, 3]
    place = 2 * focal * world[..., :2] / world[..., 2:]
    expected = torch.nn.functional.grid_sample(
        image[None], place[None], align_corners=False, padding_mode="border"
    )
    inside = (place.abs() < 0.9).all(-1)
    assert inside.float().mean() > 0.6
    error = (made.images[0, view] - expected[0]).abs()[:, inside]
    assert error.mean() < 0.02
    mirrored = (made.images[0, 1] - expected[0]).abs()[:, inside]
    assert mirrored.mean() > 3 * error.mean()


def test_a_flat_scene_is_consistent_with_itself(evaluation):
    flat = evaluation.figures["flat"]
    assert flat["reprojection_error"] < 0.02
    assert flat["reprojection_validity"] > 0.6
    assert 1 <= flat["non_flatness"] < 1.001
    assert "reprojection_error" not in evaluation.figures["noisy"]


def test_items_are_ranked_by_their_nearest_real_picture(evaluation, streams):
    real, inputs = streams
    vectors = Means()(torch.cat(list(real.batches(8))))
    item = evaluation.items[4]
    own = Means()(inputs.read(item.facts["number"])[1][None])
    expected = (vectors - own).norm(dim=1).min().item()
    assert item.figures["noisy"]["nearest_real"] == pytest.approx(expected, abs=1e-4)
    assert evaluation.sheet(4).shape == (3, SIDE, 7 * SIDE)
    row = evaluation.sheet(4)[:, :, 3 * SIDE : 4 * SIDE]
    assert psnr(row[None], inputs.read(item.facts["number"])[1][None]).item() == 100


def test_an_unreadable_picture_is_left_out_once_and_named(evaluation):
    assert [Path(reject.name).name for reject in evaluation.rejected] == ["broken.png"]
    assert "not a picture" in evaluation.rejected[0].reason
    used = evaluation.protocol["real"]["pictures"]
    assert used + evaluation.protocol["generated"]["noisy"]["scenes"] == 40


def test_a_network_that_tells_classes_gives_the_inception_score(streams):
    real, inputs = streams
    figures = evaluate_generation(Noisy(inputs, 0.2), real, Brightness()).figures["noisy"]
    assert {"kid-inception_canonical", "fid20-debug_canonical"} <= set(figures)
    pictures = torch.cat(list(inputs.batches(8)))
    told = Brightness().probabilities((pictures * 255).round() / 255).double()
    parts = []
    for start in range(0, 20, 2):  # ten splits of two
        part = told[start : start + 2]
        parts.append((part * (part / part.mean(0)).log()).sum(1).mean().exp().item())
    assert figures["inception_score"] == pytest.approx(sum(parts) / 10, abs=1e-4)


def test_two_runs_give_the_same_report(streams):
    real, inputs = streams
    runs = [evaluate_generation(Noisy(inputs, 0.2), real, Means(), seed=2) for _ in range(2)]
    assert json.dumps(runs[0].json(True)) == json.dumps(runs[1].json(True))


def test_only_inceptions_distance_of_many_is_fid():
    assert frechet_name("inception", 10_000) == "fid"
    assert frechet_name("inception", 256) == "fid256-debug"
    assert frechet_name("unflat", 50_000) == "frechet-unflat"


def test_too_few_pictures_are_a_persons_mistake(streams, folder):
    real, inputs = streams
    with pytest.raises(UserError, match="too few"):
        evaluate_generation(Noisy(inputs.part([0, 1]), 0.1), real, Means())
    broken = FlatPictures(PictureStream([folder], SIDE, [40] * 5))
    with pytest.raises(UserError, match="made no picture; the first"):
        evaluate_generation(broken, real, Means())


def test_one_camera_for_each_scene_and_view(streams):
    made = FlatPictures(streams[0]).generate(range(3), ANGLES, SIDE)
    assert isinstance(made.camera, Camera)
    assert made.camera.batch_shape == (3, 3)
