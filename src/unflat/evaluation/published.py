"""Figures that papers print, as they print them, to be shown beside ours."""

from unflat.evaluation.result import Column, Published

_NOT_OURS = (
    "Quoted, not comparable: other objects, renders and input views, and metrics of other code"
)
_NERF_FROM_IMAGE = "Pavllo et al. 2023, Shape, Pose, and Appearance from a Single Image"

INVERSION = (
    Published(
        title="ShapeNet-SRN, hybrid inversion: other views at true poses, and the camera",
        source=f"{_NERF_FROM_IMAGE}, arXiv 2211.11674",
        columns=(
            Column(key="cars_psnr", label="cars PSNR dB"),
            Column(key="cars_deg", label="cars rotation deg", better="lower"),
            Column(key="chairs_psnr", label="chairs PSNR dB"),
            Column(key="chairs_deg", label="chairs rotation deg", better="lower"),
        ),
        rows={
            "N=30 (rotation: feed-forward)": {
                "cars_psnr": 19.55,
                "cars_deg": 10.84,
                "chairs_psnr": 19.36,
                "chairs_deg": 7.29,
            }
        },
        comparable=_NOT_OURS,
    ),
)
"""Of task `inversion`."""

_ZERO123 = "Liu et al. 2023, Zero-1-to-3, arXiv 2303.11328"

VIEWS = (
    Published(
        title="novel views of RTMV, whole frame",
        source=f"first row: {_ZERO123}; reruns of its weights by the author of ZeroNVS, "
        "cvlab-columbia/zero123 issue 57",
        columns=(
            Column(key="psnr", label="PSNR dB", form="{:.3f}"),
            Column(key="ssim", label="SSIM", form="{:.3f}"),
            Column(key="lpips", label="LPIPS", form="{:.3f}", better="lower"),
        ),
        rows={
            "Zero-1-to-3": {"psnr": 10.405, "ssim": 0.606, "lpips": 0.323},
            "rerun": {"psnr": 10.09, "ssim": 0.540, "lpips": 0.406},
            "rerun, scenes and views as the authors named them": {
                "psnr": 10.07, "ssim": 0.536, "lpips": 0.422,
            },
        },
        comparable=f"{_NOT_OURS}; no evaluation code was published, and LPIPS was not reproduced",
    ),
)  # fmt: skip
"""Of task `views`."""
