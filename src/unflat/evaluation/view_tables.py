"""What the tables of the task "views" show."""

from unflat.evaluation import view_following
from unflat.evaluation.result import Column, Table
from unflat.evaluation.view_figures import ANGLES


def view_tables(distances: tuple[str, ...], features: str | None) -> list[Table]:
    """Object, frame, pose, sets, by angle; the best of several seeds where there were several.

    Args:
        distances: names of those that were measured.
        features: name of the network of the kernel distance; none if not given.
    """

    def columns(ending: str) -> list[Column]:
        return [
            Column(key=f"psnr{ending}", label="PSNR dB"),
            Column(key=f"ssim{ending}", label="SSIM", form="{:.3f}"),
            Column(key=f"ssim_uniform{ending}", label="SSIM (uniform)", form="{:.3f}"),
            *(
                Column(key=f"{name}{ending}", label=name, form="{:.3f}", better="lower")
                for name in distances
            ),
        ]

    whole = [Column(key="hull_agreement", label="agreement on one solid", form="{:.3f}")]
    if features is not None:
        key = f"kid-{features}"
        whole.append(Column(key=key, label=key, form="{:.4f}", better="lower"))
        whole.append(Column(key=f"{key}_error", label="±", form="{:.4f}", better=""))
    ranges = [f"{low} to {high}" for low, high in zip((0, *ANGLES), ANGLES, strict=False)]
    return [
        Table(
            title="Object (true mask of each target)",
            columns=[
                *columns("_masked"),
                Column(key="outline_iou", label="outline IoU", form="{:.3f}"),
            ],
        ),
        Table(title="Whole frame, white background included", columns=columns("")),
        *view_following.tables(),
        Table(title="All views of an object, and all views as a set", columns=whole),
        Table(
            title="PSNR dB by angle from the input, object",
            columns=[
                Column(key=f"psnr_masked_{angle}", label=f"{name} deg")
                for name, angle in zip(ranges, ANGLES, strict=True)
            ],
        ),
        Table(
            title="PSNR dB by angle from the input, whole frame",
            columns=[
                Column(key=f"psnr_{angle}", label=f"{name} deg")
                for name, angle in zip(ranges, ANGLES, strict=True)
            ],
        ),
        Table(
            title="Best seed of several for each object, PSNR dB",
            columns=[
                Column(key="best_psnr_masked", label="object"),
                Column(key="best_psnr", label="whole frame"),
            ],
        ),
    ]
