import pytest
import torch

from unflat.losses import total_variation


def test_a_slope_has_the_square_of_its_steps():
    rows, columns = torch.arange(5.0)[:, None], torch.arange(7.0)
    planes = (0.3 * rows + 0.5 * columns).expand(2, 3, 5, 7)
    assert total_variation(planes).item() == pytest.approx(0.3**2 + 0.5**2, rel=1e-5)


def test_flat_planes_have_none_and_a_checkerboard_has_most():
    assert total_variation(torch.full((2, 4, 4), 0.7)).item() == 0
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    assert total_variation(board.float()).item() == pytest.approx(2.0)


def test_equal_to_a_slow_loop(generator):
    plane = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    down = [(plane[i + 1, j] - plane[i, j]) ** 2 for i in range(2) for j in range(4)]
    across = [(plane[i, j + 1] - plane[i, j]) ** 2 for i in range(3) for j in range(3)]
    expected = sum(down) / len(down) + sum(across) / len(across)
    torch.testing.assert_close(total_variation(plane), torch.as_tensor(expected))


def test_gradients(generator):
    planes = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total_variation, (planes,))


def test_a_line_of_texels_varies_along_itself_alone():
    line = torch.tensor([[0.0, 1.0, 3.0]])
    assert total_variation(line).item() == pytest.approx(2.5)
    assert total_variation(line.T).item() == pytest.approx(2.5)
    assert total_variation(torch.ones(2, 1, 1)).item() == 0
