import math

import pytest
import torch

from unflat.errors import UserError
from unflat.geometry import Camera, Frame, Placement

FRAME = Frame(focal_true=1.3, a=1.4, b=-0.1)
LOW, HIGH = torch.tensor([-1.0, 0.0, -0.5]), torch.tensor([1.0, 4.0, 0.5])


def corners() -> torch.Tensor:
    box = torch.stack([LOW, HIGH])
    return torch.cartesian_prod(*box.unbind(dim=1))


def placed(place: Placement) -> torch.Tensor:
    matrix = place.matrix(LOW, HIGH, FRAME)
    return corners() @ matrix[:3, :3].T + matrix[:3, 3]


def camera() -> Camera:
    half = FRAME.focal_true / 2
    return Camera(camera_to_world=torch.eye(4), intrinsics=torch.tensor([half, half, 0.5, 0.5]))


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (-1.0, 1.0), (0.4, -0.7)])
def test_the_middle_of_the_box_is_seen_where_the_person_points(x: float, y: float) -> None:
    place = Placement(x=x, y=y, nearness=0.6, turn=0.5)
    middle = placed(place).mean(0)
    uv, depth = camera().project(middle[None])
    torch.testing.assert_close(uv[0], torch.tensor([0.5 + x / 2, 0.5 - y / 2]))
    normalised = FRAME.view_coordinates(FRAME.warp(middle))[2]
    assert float(normalised) == pytest.approx(0.6, abs=1e-5)
    assert float(depth[0]) == pytest.approx(place.depth(FRAME))


def test_what_stands_has_its_underside_at_the_place() -> None:
    place = Placement(x=0.2, y=-0.5, nearness=0.6, turn=0.4, stands=True)
    matrix = place.matrix(LOW, HIGH, FRAME)
    under = torch.tensor([0.0, 0.0, 0.0])  # the middle of the lowest side of the box
    uv, depth = camera().project((matrix[:3, :3] @ under + matrix[:3, 3])[None])
    torch.testing.assert_close(uv[0], torch.tensor([0.6, 0.75]))
    assert float(depth[0]) == pytest.approx(place.depth(FRAME))


def test_the_longest_side_is_a_share_of_the_visible_height() -> None:
    place = Placement(nearness=0.3, size=0.25)
    points = placed(place)
    visible = 2 * place.depth(FRAME) / FRAME.focal_true
    extent = points.amax(0) - points.amin(0)
    torch.testing.assert_close(extent, torch.tensor([0.5, 1.0, 0.25]) * 0.25 * visible)


def test_an_object_stands_upright_and_faces_the_camera_and_turns_to_the_right() -> None:
    straight = Placement().matrix(LOW, HIGH, FRAME)[:3, :3]
    unit = straight / straight[:, 0].norm()
    up, front = unit @ torch.tensor([0.0, 1.0, 0.0]), unit @ torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(up, torch.tensor([0.0, -1.0, 0.0]))  # y is down
    torch.testing.assert_close(front, torch.tensor([0.0, 0.0, -1.0]))  # towards the camera
    turned = Placement(turn=math.pi / 2).matrix(LOW, HIGH, FRAME)[:3, :3]
    front = turned @ torch.tensor([0.0, 0.0, 1.0]) / turned[:, 0].norm()
    torch.testing.assert_close(front, torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    assert torch.linalg.det(turned) > 0


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"x": 1.2}, "placement x 1.2: is outside the scene; must be from -1, the picture's left"),
        ({"y": -3.0}, "placement y -3: is outside the scene; must be from -1, the picture's lower"),
        ({"nearness": 1.1}, "placement nearness 1.1: is outside the scene; must be from 0, the"),
        ({"nearness": -0.1}, "placement nearness -0.1: is outside the scene"),
        ({"nearness": math.nan}, "placement nearness nan: is outside the scene"),
        ({"size": 0.0}, "placement size 0: must be from 0.001 to 2 of the visible height"),
        ({"turn": math.inf}, "placement turn inf: is no angle; give a number"),
    ],
)
def test_a_place_outside_is_a_sentence_with_the_range(wrong, sentence: str) -> None:
    with pytest.raises(UserError) as told:
        Placement(**wrong)
    assert str(told.value).startswith(sentence)


def test_reaching_into_the_camera_is_refused_with_what_would_do() -> None:
    nearest = 1.2
    with pytest.raises(UserError, match="would reach into the camera") as told:
        Placement(nearness=0.9, size=1.5, turn=0.5).matrix(LOW, HIGH, FRAME, nearest)
    most = float(str(told.value).split("at most ")[1].split(" ")[0])
    place = Placement(nearness=most, size=1.5, turn=0.5)
    matrix = place.matrix(LOW, HIGH, FRAME, nearest)
    depths = (corners() @ matrix[:3, :3].T + matrix[:3, 3])[:, 2]
    assert nearest <= float(depths.min()) < 1.05 * nearest
    with pytest.raises(UserError, match="into the camera there; give a smaller size"):
        Placement(nearness=0.1, size=2.0).matrix(LOW[[0, 2, 1]], HIGH[[0, 2, 1]], FRAME, 3.0)
