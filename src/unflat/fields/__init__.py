"""What can be asked for density and colour at points of space."""

from unflat.fields.background import Background, PanoramaBackground
from unflat.fields.composition import ComposedField, Placed, similarity
from unflat.fields.contraction import contract, uncontract
from unflat.fields.field import Bounded, Field, FieldOutput, Warped
from unflat.fields.planes import sample_plane, sample_triplane
from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.fields.viewspace import (
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
    assumed_points,
    view_coordinates,
)
from unflat.fields.voxels import VoxelField

__all__ = [
    "Background",
    "Bounded",
    "ComposedField",
    "FeatureDecoder",
    "Field",
    "FieldOutput",
    "PanoramaBackground",
    "Placed",
    "TriplaneField",
    "ViewSpaceDecoder",
    "ViewSpaceField",
    "ViewSpacePlanes",
    "VoxelField",
    "Warped",
    "assumed_points",
    "contract",
    "sample_plane",
    "sample_triplane",
    "similarity",
    "uncontract",
    "view_coordinates",
]
