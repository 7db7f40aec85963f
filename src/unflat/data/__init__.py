"""Pictures in: folders, tars, posed scenes, procedural scenes, and a person's own photographs."""

from unflat.data.check import CheckReport
from unflat.data.compcars import CompCarsSource
from unflat.data.dataset import NO_LABEL, PictureDataset, open_source
from unflat.data.depth_maps import (
    DepthSource,
    Meaning,
    encode_disparity,
    normalized_disparity,
    read_map,
)
from unflat.data.disparity import read_disparity
from unflat.data.folder import FolderSource
from unflat.data.object_mesh import ObjectSurface, read_object_mesh
from unflat.data.pictures import MAX_PIXELS, open_picture
from unflat.data.posed import PosedScene, PosedScenes
from unflat.data.posed_objects import PosedObject, PosedObjects
from unflat.data.posed_views import (
    PosedBatches,
    PosedViews,
    batch_camera,
    camera_keys,
)
from unflat.data.prepare import Prepared, prepare_picture
from unflat.data.procedural import ProceduralFiles, write_procedural
from unflat.data.procedural_objects import (
    ObjectView,
    ProceduralObjectFiles,
    ProceduralObjects,
    write_procedural_objects,
)
from unflat.data.sample import PictureSource, Reject, Sample
from unflat.data.sampler import BatchSource
from unflat.data.shard import Shard, ShardSource
from unflat.data.view_layouts import open_views

__all__ = [
    "MAX_PIXELS",
    "NO_LABEL",
    "BatchSource",
    "CheckReport",
    "CompCarsSource",
    "DepthSource",
    "FolderSource",
    "Meaning",
    "ObjectSurface",
    "ObjectView",
    "PictureDataset",
    "PictureSource",
    "PosedBatches",
    "PosedObject",
    "PosedObjects",
    "PosedScene",
    "PosedScenes",
    "PosedViews",
    "Prepared",
    "ProceduralFiles",
    "ProceduralObjectFiles",
    "ProceduralObjects",
    "Reject",
    "Sample",
    "Shard",
    "ShardSource",
    "batch_camera",
    "camera_keys",
    "encode_disparity",
    "normalized_disparity",
    "open_picture",
    "open_source",
    "open_views",
    "prepare_picture",
    "read_disparity",
    "read_map",
    "read_object_mesh",
    "write_procedural",
    "write_procedural_objects",
]
