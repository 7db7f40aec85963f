import pytest
import torch

from unflat.losses import pixel_loss


@pytest.mark.parametrize(("form", "expected"), [("squared", 0.09), ("absolute", 0.3)])
def test_every_value_is_compared_for_itself(form, expected):
    one, two = torch.full((2, 3, 4), 0.2), torch.full((2, 3, 4), 0.5)
    two[1] = 0.2
    loss = pixel_loss(one, two, form)
    assert loss.shape == (2, 3, 4)
    torch.testing.assert_close(loss[0], torch.full((3, 4), expected))
    assert (loss[1] == 0).all()
    assert torch.equal(loss, pixel_loss(two, one, form))


@pytest.mark.parametrize("form", ["squared", "absolute"])
def test_gradients_point_from_the_picture_to_the_target(form):
    picture = torch.tensor([0.2, 0.9], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: pixel_loss(x, target, form), (picture,))
    (grad,) = torch.autograd.grad(pixel_loss(picture, target, form).sum(), picture)
    assert grad[0] < 0 < grad[1]


def test_squared_is_the_default():
    assert pixel_loss(torch.tensor([0.0]), torch.tensor([3.0])).item() == 9
