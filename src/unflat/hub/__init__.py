"""What models there are, where their weights lie, what they may be used for."""

from unflat.hub.card import SECTIONS, draft_card, read_card
from unflat.hub.encoder_files import read_encoder_file
from unflat.hub.generator_files import read_generator_file
from unflat.hub.model_file import ModelFile
from unflat.hub.published_folder import PublishedFolder, published_folder
from unflat.hub.registry import (
    EXAMPLE_CREDIT,
    MODELS,
    Description,
    example_object,
    example_picture,
    find,
    is_here,
)
from unflat.hub.view_models import (
    PUBLISHED_VIEWS,
    FoundViews,
    KnownViews,
    describe_views,
    find_views,
)
from unflat.hub.weight_files import FID_FILE, WeightFile, read_weight_file

__all__ = [
    "EXAMPLE_CREDIT",
    "FID_FILE",
    "MODELS",
    "PUBLISHED_VIEWS",
    "SECTIONS",
    "Description",
    "FoundViews",
    "KnownViews",
    "ModelFile",
    "PublishedFolder",
    "WeightFile",
    "describe_views",
    "draft_card",
    "example_object",
    "example_picture",
    "find",
    "find_views",
    "is_here",
    "published_folder",
    "read_card",
    "read_encoder_file",
    "read_generator_file",
    "read_weight_file",
]
