"""What can be asked for density and colour at points of space."""

from unflat.fields.background import Background, PanoramaBackground
from unflat.fields.behind import BehindField
from unflat.fields.composition import ComposedField, Placed, similarity
from unflat.fields.contraction import contract, uncontract
from unflat.fields.cutout import CutoutField
from unflat.fields.detail import DetailField, HiddenSheet
from unflat.fields.distance import (
    DistanceDecoder,
    DistanceTriplaneField,
    LaplaceDensity,
    PaletteField,
    mix,
)
from unflat.fields.distance_voxels import DistanceVoxelField, soft_density
from unflat.fields.edited import EditedField, Inserted
from unflat.fields.field import Bounded, Distanced, Field, FieldOutput, Furnished, Warped
from unflat.fields.planes import sample_plane, sample_triplane
from unflat.fields.saved import SavedField, pack_field, unpack_field
from unflat.fields.saved_object import pack_object_field, unpack_object_field
from unflat.fields.siren import DistanceSirenField, SirenField
from unflat.fields.slope import outward
from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.fields.viewspace import (
    CanonicalField,
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
    assumed_points,
    ray_limits,
    view_coordinates,
)
from unflat.fields.voxels import VoxelField

__all__ = [
    "Background",
    "BehindField",
    "Bounded",
    "CanonicalField",
    "ComposedField",
    "CutoutField",
    "DetailField",
    "DistanceDecoder",
    "DistanceSirenField",
    "DistanceTriplaneField",
    "DistanceVoxelField",
    "Distanced",
    "EditedField",
    "FeatureDecoder",
    "Field",
    "FieldOutput",
    "Furnished",
    "HiddenSheet",
    "Inserted",
    "LaplaceDensity",
    "PaletteField",
    "PanoramaBackground",
    "Placed",
    "SavedField",
    "SirenField",
    "TriplaneField",
    "ViewSpaceDecoder",
    "ViewSpaceField",
    "ViewSpacePlanes",
    "VoxelField",
    "Warped",
    "assumed_points",
    "contract",
    "mix",
    "outward",
    "pack_field",
    "pack_object_field",
    "ray_limits",
    "sample_plane",
    "sample_triplane",
    "similarity",
    "soft_density",
    "uncontract",
    "unpack_field",
    "unpack_object_field",
    "view_coordinates",
]
