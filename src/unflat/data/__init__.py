"""Pictures in: folders, tars, posed scenes, procedural scenes, and a person's own photographs."""

from unflat.data.dataset import NO_LABEL, PictureDataset, open_source
from unflat.data.disparity import read_disparity
from unflat.data.folder import FolderSource
from unflat.data.pictures import MAX_PIXELS, open_picture
from unflat.data.sample import PictureSource, Reject, Sample
from unflat.data.sampler import BatchSource
from unflat.data.shard import Shard, ShardSource

__all__ = [
    "MAX_PIXELS",
    "NO_LABEL",
    "BatchSource",
    "FolderSource",
    "PictureDataset",
    "PictureSource",
    "Reject",
    "Sample",
    "Shard",
    "ShardSource",
    "open_picture",
    "open_source",
    "read_disparity",
]
