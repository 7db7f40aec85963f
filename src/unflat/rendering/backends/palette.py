"""Colors of a palette, mixed after the march: what rays bring back is linear in them."""

from torch import Tensor

from unflat.fields.distance import PaletteField, mix
from unflat.fields.field import Field, FieldOutput
from unflat.rendering.backends.contract import Backend, Marched, Marching, Rays


class Mixing:
    """A backend that takes a `PaletteField`: another one marches the choices that are in it.

    The sum of weights times (choices times colors) is (the sum of weights times choices) times
    colors, so a palette costs nothing for each sample. It gets gradients of any order, the rest
    those of the other backend.
    """

    def __init__(self, inner: Backend):
        """What marches the choices."""
        self.inner, self.name = inner, inner.name

    def refuses(self, field: Field, rays: Rays) -> str | None:
        """What the other backend refuses."""
        return self.inner.refuses(_palette(field).field, rays)

    def pays(self, field: Field, rays: Rays) -> bool:
        """What the other backend says."""
        return self.inner.pays(_palette(field).field, rays)

    def march(self, field: Field, rays: Rays, how: Marching) -> Marched:
        """Light along the rays, in colors."""
        colors = _palette(field)
        choices, weights = self.inner.march(colors.field, rays, how)
        return Marched(mix(choices, colors.palette), weights)

    def pays_to_ask(self, field: Field, points: Tensor) -> bool:
        """What the other backend says."""
        return self.inner.pays_to_ask(_palette(field).field, points)

    def ask(self, field: Field, points: Tensor) -> FieldOutput | None:
        """Density and colors at points; None if the other backend has no quicker way."""
        colors = _palette(field)
        answer = self.inner.ask(colors.field, points)
        return answer and FieldOutput(answer.density, mix(answer.features, colors.palette))


def _palette(field: Field) -> PaletteField:
    if not isinstance(field, PaletteField):
        raise ValueError(f"{type(field).__name__} has no palette")
    return field
