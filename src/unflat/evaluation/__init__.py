"""Tasks: a model, a data set, a protocol, baselines; a table."""

from unflat.evaluation.reconstruction import evaluate_reconstruction, evaluate_reconstructor
from unflat.evaluation.reconstructor import Alignment, Mode, Reconstruction, Reconstructor
from unflat.evaluation.table import table_lines

__all__ = [
    "Alignment",
    "Mode",
    "Reconstruction",
    "Reconstructor",
    "evaluate_reconstruction",
    "evaluate_reconstructor",
    "table_lines",
]
