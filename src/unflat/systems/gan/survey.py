"""The field's 3D-aware generators in one table, and which of them can be trained here.

The rows follow the list "Awesome 3D-aware Generation": implicit fields, voxels, meshes, depth,
hybrids; then nerf-from-image's generator, and one of nobody's. Code and licences are as their
repositories had them when they were read. Figures stand here only if they were read in the authors'
own abstract or repository; all that is only remembered, or quoted by others, is left out, so most
rows have none. Where the paper alone is public, what it holds rests on the paper.
"""

from dataclasses import dataclass
from typing import Literal

from unflat.systems.gan.registry import SYSTEMS

NO_CODE = "no code found"
"""Instead of a licence, where nothing was published."""

NONE_STATED = "none stated"
"""Of code without a licence file: it may be read, and not reused."""

INCOMPARABLE = (
    "Figures are as their authors print them and do not compare: numbers of pictures, crops, "
    "resizing, cameras and feature networks all differ."
)
"""What must stand beside `Surveyed.figures`."""

Status = Literal["here", "not yet"]


@dataclass(frozen=True)
class Surveyed:
    """A published system."""

    title: str
    """What its authors call it."""
    arxiv: str | None
    """Number of the paper there."""
    venue: str
    """Where it appeared."""
    holds: str
    """What an object is to it."""
    code: str | None
    """Repository on GitHub."""
    licence: str
    """Of that code."""
    figures: str | None = None
    """As printed by the authors; see `INCOMPARABLE`."""
    protocol: str | None = None
    """How their code measures by default, or how those figures were."""


SURVEY: dict[str, Surveyed] = {
    "unsup3d": Surveyed(
        title="Unsup3D",
        arxiv="1911.11130",
        venue="CVPR 2020",
        holds="canonical depth and albedo maps, light, view",
        code="elliottwu/unsup3d",
        licence="MIT",
    ),
    "graf": Surveyed(
        title="GRAF",
        arxiv="2007.02442",
        venue="NeurIPS 2020",
        holds="field of density and colour",
        code="autonomousvision/graf",
        licence="MIT",
        protocol="FID and KID of 20000 real and 1000 made pictures",
    ),
    "nerf_vae": Surveyed(
        title="NeRF-VAE",
        arxiv="2104.00587",
        venue="ICML 2021",
        holds="field of density and colour, shared over scenes",
        code=None,
        licence=NO_CODE,
    ),
    "giraffe": Surveyed(
        title="GIRAFFE",
        arxiv="2011.12100",
        venue="CVPR 2021",
        holds="sum of feature fields in boxes, and a background field",
        code="autonomousvision/giraffe",
        licence="MIT",
        protocol="FID of 20000 pictures",
    ),
    "pigan": Surveyed(
        title="pi-GAN",
        arxiv="2012.00926",
        venue="CVPR 2021",
        holds="field of density and colour, by sines",
        code="marcoamonteiro/pi-GAN",
        licence=NONE_STATED,
        protocol="FID of 8000 real and 2048 made pictures, both stored as JPEG",
    ),
    "lifted": Surveyed(
        title="LiftedGAN",
        arxiv="2011.13126",
        venue="CVPR 2021",
        holds="depth and transform maps from StyleGAN2's features",
        code="seasonSH/LiftedGAN",
        licence="MIT, with files of others",
    ),
    "gsn": Surveyed(
        title="GSN",
        arxiv="2104.00670",
        venue="ICCV 2021",
        holds="floor plan of local codes, read by a field",
        code="apple/ml-gsn",
        licence="Apple's sample code licence",
        protocol="FID of 5000 pictures",
    ),
    "shadegan": Surveyed(
        title="ShadeGAN",
        arxiv="2110.15678",
        venue="NeurIPS 2021",
        holds="field of density and albedo, shaded",
        code="XingangPan/ShadeGAN",
        licence="MIT",
    ),
    "gof": Surveyed(
        title="GOF",
        arxiv="2111.00969",
        venue="NeurIPS 2021",
        holds="field of occupancy",
        code="SheldonTsui/GOF_NeurIPS2021",
        licence="Apache-2.0",
    ),
    "cips3d": Surveyed(
        title="CIPS-3D",
        arxiv="2110.09788",
        venue="arXiv 2021",
        holds="shallow field, then a deep network for each pixel",
        code="PeterouZh/CIPS-3D",
        licence="MIT",
        figures="FID 6.97 (FFHQ, 256 px)",
        protocol="as in the abstract",
    ),
    "campari": Surveyed(
        title="CAMPARI",
        arxiv="2103.17269",
        venue="3DV 2021",
        holds="foreground field, and a background on a sphere",
        code="autonomousvision/campari",
        licence="MIT",
        protocol="FID of 20000 pictures, 1000 while training",
    ),
    "gan2shape": Surveyed(
        title="GAN2Shape",
        arxiv="2011.00844",
        venue="ICLR 2021",
        holds="Unsup3D's maps, found for each picture",
        code="XingangPan/GAN2Shape",
        licence="MIT",
    ),
    "stylenerf": Surveyed(
        title="StyleNeRF",
        arxiv="2110.08985",
        venue="ICLR 2022",
        holds="modulated field of features, enlarged in 2D",
        code="facebookresearch/StyleNeRF",
        licence="CC BY-NC, with parts of NVIDIA's",
    ),
    "gram": Surveyed(
        title="GRAM",
        arxiv="2112.08867",
        venue="CVPR 2022",
        holds="radiance on learned level sets",
        code="microsoft/GRAM",
        licence="for research only",
        figures="FID / KID x 100: 14.5 / 0.65 (FFHQ), 14.6 / 0.75 (Cats), 26.3 / 1.15 (CARLA)",
        protocol="20000 pictures, released models; 8000 real and 1000 made by default",
    ),
    "stylesdf": Surveyed(
        title="StyleSDF",
        arxiv="2112.11427",
        venue="CVPR 2022",
        holds="field of signed distance, colour and features, enlarged in 2D",
        code="royorel/StyleSDF",
        licence="CC BY-NC-SA 4.0",
    ),
    "pix2nerf": Surveyed(
        title="Pix2NeRF",
        arxiv="2202.13162",
        venue="CVPR 2022",
        holds="pi-GAN's field",
        code="primecai/Pix2NeRF",
        licence=NONE_STATED,
    ),
    "giraffe_hd": Surveyed(
        title="GIRAFFE HD",
        arxiv="2203.14954",
        venue="CVPR 2022",
        holds="feature field of an object, and a 2D background",
        code="AustinXY/GIRAFFEHD",
        licence="MIT",
        protocol="FID of 10000 pictures",
    ),
    "mvcgan": Surveyed(
        title="MVCGAN",
        arxiv="2204.06307",
        venue="CVPR 2022",
        holds="pi-GAN's field, enlarged in 2D",
        code="Xuanmeng-Zhang/MVCGAN",
        licence="BSD-3-Clause",
    ),
    "volux": Surveyed(
        title="VoLux-GAN",
        arxiv="2201.04873",
        venue="arXiv 2022",
        holds="field of albedo, normals and gloss",
        code=None,
        licence=NO_CODE,
    ),
    "gif3d": Surveyed(
        title="3D-GIF",
        arxiv="2203.06457",
        venue="arXiv 2022",
        holds="fields of albedo, normals and light, the same from all sides",
        code=None,
        licence=NO_CODE,
    ),
    "gram_hd": Surveyed(
        title="GRAM-HD",
        arxiv="2206.07255",
        venue="ICCV 2023",
        holds="GRAM's surfaces, made finer on themselves",
        code="JeffreyXiang/GRAM-HD",
        licence="MIT",
    ),
    "geod": Surveyed(
        title="GeoD",
        arxiv="2209.15637",
        venue="NeurIPS 2022",
        holds="whatever another generator has, whose critic reads geometry",
        code="VivianSZF/geod",
        licence=f"{NONE_STATED}, a readme without code",
    ),
    "epigraf": Surveyed(
        title="EpiGRAF",
        arxiv="2206.10535",
        venue="NeurIPS 2022",
        holds="tri-planes",
        code="universome/epigraf",
        licence=NONE_STATED,
        figures="FID 9.87 (FFHQ, 512 px), 18.64 (Plants), 19.95 (Food)",
        protocol="released models, as in the readme; the paper's are others",
    ),
    "pix2pix3d": Surveyed(
        title="pix2pix3D",
        arxiv="2302.08509",
        venue="CVPR 2023",
        holds="tri-planes with labels, sharpened in 2D",
        code="dunbar12138/pix2pix3D",
        licence="MIT, on NVIDIA's code",
    ),
    "gp3d": Surveyed(
        title="3DGP",
        arxiv="2303.01416",
        venue="ICLR 2023",
        holds="tri-planes",
        code="snap-research/3dgp",
        licence="none granted",
    ),
    "prgan": Surveyed(
        title="PrGAN",
        arxiv="1612.05872",
        venue="3DV 2017",
        holds="voxels of occupancy",
        code="matheusgadelha/PrGAN",
        licence=NONE_STATED,
    ),
    "hologan": Surveyed(
        title="HoloGAN",
        arxiv="1904.01326",
        venue="ICCV 2019",
        holds="voxels of features, enlarged in 2D",
        code="thunguyenphuoc/HoloGAN",
        licence=NONE_STATED,
    ),
    "iggan": Surveyed(
        title="IGGAN",
        arxiv="2002.12674",
        venue="arXiv 2020",
        holds="voxels",
        code=None,
        licence=NO_CODE,
    ),
    "blockgan": Surveyed(
        title="BlockGAN",
        arxiv="2002.08988",
        venue="NeurIPS 2020",
        holds="voxels of features for each object, and for the background",
        code="thunguyenphuoc/BlockGAN",
        licence="MIT",
    ),
    "voxgraf": Surveyed(
        title="VoxGRAF",
        arxiv="2206.07695",
        venue="NeurIPS 2022",
        holds="sparse voxels of colour and density, and a 2D background",
        code="autonomousvision/voxgraf",
        licence="MIT, with parts of NVIDIA's",
    ),
    "szabo": Surveyed(
        title="Szabó et al.",
        arxiv="1910.00287",
        venue="arXiv 2019",
        holds="maps of vertices and texture",
        code=None,
        licence=NO_CODE,
    ),
    "ganverse": Surveyed(
        title="Zhang et al.",
        arxiv="2010.09125",
        venue="ICLR 2021",
        holds="deformed sphere with texture",
        code=None,
        licence=NO_CODE,
    ),
    "texmesh": Surveyed(
        title="Henderson et al.",
        arxiv="2004.04180",
        venue="CVPR 2020",
        holds="mesh with texture that cannot cut itself, and a 2D background",
        code="pmh47/textured-mesh-gen",
        licence=NONE_STATED,
    ),
    "meshdiff": Surveyed(
        title="MeshDiffusion",
        arxiv="2303.08133",
        venue="ICLR 2023",
        holds="deformable tetrahedra on a grid",
        code="lzzcd001/MeshDiffusion",
        licence="MIT",
    ),
    "rgbdgan": Surveyed(
        title="RGBD-GAN",
        arxiv="1909.12573",
        venue="ICLR 2020",
        holds="picture with depth, for each view",
        code="nogu-atsu/RGBD-GAN",
        licence="MIT, with parts of StyleGAN's (non-commercial)",
    ),
    "depthgan": Surveyed(
        title="DepthGAN",
        arxiv="2202.08553",
        venue="ECCV 2022",
        holds="picture with depth",
        code="VivianSZF/depthgan",
        licence=NONE_STATED,
    ),
    "volumegan": Surveyed(
        title="VolumeGAN",
        arxiv="2112.10759",
        venue="CVPR 2022",
        holds="voxels of features, read by a field, enlarged in 2D",
        code="genforce/volumegan",
        licence="MIT",
    ),
    "eg3d": Surveyed(
        title="EG3D",
        arxiv="2112.07945",
        venue="CVPR 2022",
        holds="tri-planes, sharpened in 2D",
        code="NVlabs/eg3d",
        licence="NVIDIA's, non-commercial",
        protocol="FID of 50000 made pictures and all real ones (fid50k_full)",
    ),
    "gif": Surveyed(
        title="GIF",
        arxiv="2009.00149",
        venue="3DV 2020",
        holds="rendered maps of a face model, painted in 2D",
        code="ParthaEth/GIF",
        licence="MIT, but needs FLAME's",
    ),
    "sdf_triplane": Surveyed(
        title="nerf-from-image",
        arxiv="2211.11674",
        venue="CVPR 2023",
        holds="tri-planes of signed distance, and a palette",
        code="google-research/nerf-from-image",
        licence="Apache-2.0",
    ),
    "siren_sdf": Surveyed(
        title="pi-GAN's sines with a signed distance, EG3D's critic",
        arxiv=None,
        venue="unpublished",
        holds="field of signed distance, by sines, sharpened in 2D",
        code=None,
        licence="unflat's own",
    ),
}
"""By the name that a system's file has, or would have: ``systems/gan/NAME.py``."""


def status(name: str) -> Status:
    """Whether a surveyed system can be trained here."""
    return "here" if name in SYSTEMS else "not yet"


def surveyed() -> dict[str, Surveyed]:
    """All of them: first those that can be trained here, each part in the survey's order."""
    return dict(sorted(SURVEY.items(), key=lambda entry: status(entry[0]) != "here"))
