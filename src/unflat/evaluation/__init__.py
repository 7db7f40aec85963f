"""Tasks: a model, a data set, a protocol, baselines; a table."""

from unflat.evaluation.page import write_page
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
)
from unflat.evaluation.table import table_lines

__all__ = [
    "Alignment",
    "Column",
    "Evaluation",
    "Item",
    "Mode",
    "Progress",
    "Published",
    "Reconstruction",
    "Reconstructor",
    "Table",
    "evaluate_reconstruction",
    "evaluate_reconstructor",
    "mean_figures",
    "means",
    "table_lines",
    "write_page",
]
