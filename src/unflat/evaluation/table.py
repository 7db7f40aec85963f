"""The figures of the reconstruction task as lines for a person."""

from collections.abc import Sequence
from typing import Any

_ROWS = (
    ("canonical_psnr", "canonical view, PSNR dB", "{:.2f}"),
    ("canonical_ssim", "canonical view, SSIM", "{:.3f}"),
    ("novel_psnr", "novel views within 20 deg, PSNR dB", "{:.2f}"),
    ("far_psnr", "novel views at 30 deg, PSNR dB", "{:.2f}"),
    ("disparity_correlation", "disparity correlation, mean", "{:.3f}"),
    ("disparity_correlation_median", "disparity correlation, median", "{:.3f}"),
    ("disparity_correlation_worst", "disparity correlation, worst", "{:.3f}"),
    ("termination_variance", "termination variance (lower is sharper)", "{:.5f}"),
    ("code_usage", "codes used at least once", "{:.1%}"),
    ("code_perplexity", "code perplexity", "{:.0f}"),
    ("photos_canonical_psnr", "photos, canonical view, PSNR dB", "{:.2f}"),
    ("photos_free_canonical_psnr", "photos of the free classes, PSNR dB", "{:.2f}"),
)
_BASELINES = (
    ("copy", "the input unchanged"),
    ("warp_input", "the input warped by the model's depth"),
    ("warp_recon", "the reconstruction warped by the model's depth"),
    ("tokens_depth_warp_input", "the input warped by the tokens' depth"),
    ("detail_depth_warp_recon", "the detail picture warped by its depth"),
    ("warp_input_supersampled", "the input warped at twice the resolution"),
    ("true_depth_warp_recon", "the reconstruction warped by the true depth"),
    ("true_depth_warp_input", "the input warped by the true depth"),
    ("true_depth_warp_input_supersampled", "the same at twice the resolution"),
)


def table_lines(result: dict[str, Any]) -> list[str]:
    """The result of `evaluate_reconstruction` as aligned plain text.

    Args:
        result: with ``figures`` and ``protocol``.
    """
    figures, protocol = result["figures"], result["protocol"]
    modes = [name for name in ("tokens", "detail") if name in figures]
    views = protocol["views"]
    head = (
        f"{protocol['model']['name']}: {protocol['scenes']} scenes at {protocol['resolution']} px, "
        f"{views['novel']} novel and {views['far']} far views, {protocol['photos']} photos"
    )
    rows = [["", *modes]]
    for key, label, form in _ROWS:
        cells = [_cell(figures[mode].get(key), form) for mode in modes]
        if any(cells):
            rows.append([label, *cells])
    below = [["baselines, PSNR dB", "novel", "far"]]
    baselines = figures["baselines"]
    for key, label in _BASELINES:
        cells = [
            _cell(baselines.get(f"{key}_{which}_psnr"), "{:.2f}") for which in ("novel", "far")
        ]
        if any(cells):
            below.append([label, *cells])
    color = _cell(baselines.get("mean_color_canonical_psnr"), "{:.2f}")
    below.append(["mean color on the canonical view", color, ""])
    return [head, "", *_aligned(rows), "", *_aligned(below)]


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text with the first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    ]
