"""Figures that papers print, as they print them, to be shown beside ours."""

from unflat.evaluation.result import Column, Published

_NOT_OURS = (
    "Quoted, not comparable: other objects, renders and input views, and metrics of other code"
)
_NERF_FROM_IMAGE = "Pavllo et al. 2023, Shape, Pose, and Appearance from a Single Image"

INVERSION = (
    Published(
        title="novel views of ShapeNet-SRN, one other view of each input at its true pose",
        source=f"{_NERF_FROM_IMAGE}, arXiv 2211.11674",
        columns=(
            Column(key="cars_psnr", label="cars PSNR dB"),
            Column(key="cars_ssim", label="cars SSIM (uniform)", form="{:.3f}"),
            Column(key="cars_fid", label="cars FID", better="lower"),
            Column(key="chairs_psnr", label="chairs PSNR dB"),
            Column(key="chairs_ssim", label="chairs SSIM (uniform)", form="{:.3f}"),
            Column(key="chairs_fid", label="chairs FID", better="lower"),
        ),
        rows={
            "Pix2NeRF": {"chairs_psnr": 18.14, "chairs_ssim": 0.84, "chairs_fid": 26.81},
            "hybrid inversion, encoder only (N=0)": {
                "cars_psnr": 18.54, "cars_ssim": 0.848, "cars_fid": 12.39,
                "chairs_psnr": 18.26, "chairs_ssim": 0.857, "chairs_fid": 8.64,
            },
            "hybrid inversion, N=10": {
                "cars_psnr": 19.24, "cars_ssim": 0.861, "cars_fid": 12.26,
                "chairs_psnr": 19.02, "chairs_ssim": 0.871, "chairs_fid": 7.62,
            },
            "hybrid inversion, N=30": {
                "cars_psnr": 19.55, "cars_ssim": 0.864, "cars_fid": 11.37,
                "chairs_psnr": 19.36, "chairs_ssim": 0.875, "chairs_fid": 7.44,
            },
        },
        comparable=_NOT_OURS,
    ),
    Published(
        title="camera of ShapeNet-SRN, mean rotation error of the feed-forward estimate",
        source=f"{_NERF_FROM_IMAGE}, arXiv 2211.11674",
        columns=(
            Column(key="cars", label="cars deg", better="lower"),
            Column(key="chairs", label="chairs deg", better="lower"),
        ),
        rows={
            "Pix2NeRF encoder (after rigid alignment)": {"chairs": 15.55},
            "direct regression": {"cars": 17.08, "chairs": 19.51},
            "canonical map and PnP": {"cars": 10.84, "chairs": 7.29},
        },
        comparable=_NOT_OURS,
    ),
)  # fmt: skip
"""Of task `inversion`."""

_ZERO123 = "Liu et al. 2023, Zero-1-to-3, arXiv 2303.11328"

VIEWS = (
    Published(
        title="novel views of RTMV, whole frame",
        source=f"first row: {_ZERO123}; reruns of its weights by the author of ZeroNVS, "
        "cvlab-columbia/zero123 issue 57",
        columns=(
            Column(key="psnr", label="PSNR dB"),
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
