import pytest
import torch

from unflat.fields import (
    DistanceDecoder,
    DistanceSirenField,
    DistanceTriplaneField,
    DistanceVoxelField,
    FeatureDecoder,
    LaplaceDensity,
    PaletteField,
    SirenField,
    TriplaneField,
    VoxelField,
    pack_object_field,
    unpack_object_field,
)
from unflat.fields.field import Distanced
from unflat.fields.saved_object import PACKINGS
from unflat.nn.siren import FilmSiren

BOX = torch.tensor([[-1.0, -0.5, -2.0], [1.0, 0.5, 3.0]])


def triplane() -> TriplaneField:
    return TriplaneField(torch.randn(1, 3, 6, 5, 5), FeatureDecoder(6, 12), BOX)


def voxels() -> VoxelField:
    density = 1e6 * torch.rand(1, 4, 3, 5)  # more than half precision holds
    return VoxelField(density, torch.rand(1, 3, 4, 3, 5), BOX)


def distances() -> DistanceTriplaneField:
    planes = torch.randn(1, 3, 6, 5, 5)
    return DistanceTriplaneField(
        planes, DistanceDecoder(6, 12, 4), LaplaceDensity(0.7, 0.2), BOX, align_corners=True
    )


def palette() -> PaletteField:
    return PaletteField(distances(), torch.rand(1, 4, 3))


def siren() -> SirenField:
    film = 0.3 * torch.randn(1, 4, 2, 8)
    return SirenField(FilmSiren(8, 3, view_dependent=False), film, BOX)


def siren_distances() -> DistanceSirenField:
    film = 0.3 * torch.randn(1, 4, 2, 8)
    return DistanceSirenField(FilmSiren(8, 3), film, LaplaceDensity(0.7, 0.2), BOX)


def distance_voxels() -> DistanceVoxelField:
    return DistanceVoxelField(
        0.3 * torch.randn(1, 4, 3, 5), torch.rand(1, 3, 4, 3, 5), BOX, softness=0.2
    )


KINDS = {
    "triplane": triplane,
    "distance_voxels": distance_voxels,
    "voxels": voxels,
    "distance_triplane": distances,
    "palette": palette,
    "siren": siren,
    "distance_siren": siren_distances,
}


@pytest.mark.parametrize("kind", PACKINGS)
def test_a_field_comes_back_up_to_half_precision(kind, generator):
    torch.manual_seed(0)
    field = KINDS[kind]()
    about, tensors = pack_object_field(field)
    assert about["kind"] == kind
    again = unpack_object_field(about, tensors)
    assert type(again) is type(field)
    points = 3 * torch.rand(1, 50, 3, generator=generator) - 1.5
    for found, expected in zip(again(points), field(points), strict=True):
        torch.testing.assert_close(found, expected, rtol=4e-3, atol=4e-3)
    if isinstance(field, Distanced) and isinstance(again, Distanced):
        torch.testing.assert_close(
            again.distance(points), field.distance(points), rtol=4e-3, atol=4e-3
        )
    # What was rounded once stays as it is, to the bit.
    about_again, tensors_again = pack_object_field(again)
    assert about_again == about
    assert tensors.keys() == tensors_again.keys()
    for name, value in tensors.items():
        assert torch.equal(tensors_again[name], value), name
        assert tensors_again[name].dtype == value.dtype


def test_decoders_keep_single_precision_and_planes_half():
    _, tensors = pack_object_field(triplane())
    assert tensors["planes"].dtype == torch.float16
    assert tensors["decoder.into.weight"].dtype == torch.float32


def test_other_fields_are_refused_by_name():
    planes = torch.zeros(1, 3, 4, 4, 4)
    with pytest.raises(ValueError, match="no packing for Linear; there are some for TriplaneField"):
        pack_object_field(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="no packing for a tri-plane with a Linear"):
        pack_object_field(TriplaneField(planes, torch.nn.Linear(4, 4), BOX))
    with pytest.raises(ValueError, match="over all of space is no object"):
        pack_object_field(TriplaneField(planes, FeatureDecoder(4)))
    with pytest.raises(ValueError, match="unknown kind of field: mist"):
        unpack_object_field({"kind": "mist"}, {})
