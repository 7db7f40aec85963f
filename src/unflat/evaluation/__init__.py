"""Tasks: a model, a data set, a protocol, baselines; a table."""

from unflat.evaluation.depth import depth_figures, evaluate_depth
from unflat.evaluation.estimators import DepthEstimator
from unflat.evaluation.generation import evaluate_generation
from unflat.evaluation.generator import FlatPictures, GeneratedViews, Generator
from unflat.evaluation.inversion import evaluate_inversion
from unflat.evaluation.inverter import Inversion, Inverter
from unflat.evaluation.lift import evaluate_lift
from unflat.evaluation.lifter import Lifter, Picture
from unflat.evaluation.networks import open_distances, open_features
from unflat.evaluation.novel_views import evaluate_views
from unflat.evaluation.object_baselines import FlatCard, TrueObjects, TurningCard
from unflat.evaluation.object_maker import FieldMaker, ObjectMaker, ObjectViews
from unflat.evaluation.objects import evaluate_objects
from unflat.evaluation.page import write_page
from unflat.evaluation.picture_stream import PictureStream
from unflat.evaluation.reconstruction import evaluate_reconstruction, evaluate_reconstructor
from unflat.evaluation.reconstructor import Alignment, Mode, Reconstruction, Reconstructor
from unflat.evaluation.result import (
    Column,
    Evaluation,
    Item,
    Progress,
    Published,
    Table,
    mean_figures,
    means,
    table_lines,
)
from unflat.evaluation.view_maker import ViewMaker

__all__ = [
    "Alignment",
    "Column",
    "DepthEstimator",
    "Evaluation",
    "FieldMaker",
    "FlatCard",
    "FlatPictures",
    "GeneratedViews",
    "Generator",
    "Inversion",
    "Inverter",
    "Item",
    "Lifter",
    "Mode",
    "ObjectMaker",
    "ObjectViews",
    "Picture",
    "PictureStream",
    "Progress",
    "Published",
    "Reconstruction",
    "Reconstructor",
    "Table",
    "TrueObjects",
    "TurningCard",
    "ViewMaker",
    "depth_figures",
    "evaluate_depth",
    "evaluate_generation",
    "evaluate_inversion",
    "evaluate_lift",
    "evaluate_objects",
    "evaluate_reconstruction",
    "evaluate_reconstructor",
    "evaluate_views",
    "mean_figures",
    "means",
    "open_distances",
    "open_features",
    "table_lines",
    "write_page",
]
