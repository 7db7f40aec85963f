"""One picture of an object to 3D, with any model of new views."""

from unflat.systems.zero123.lift.cameras import input_camera, view_plan
from unflat.systems.zero123.lift.guidance import GuidanceConfig, ScoreGuidance
from unflat.systems.zero123.lift.lift import Lifted, MakeViews, lift
from unflat.systems.zero123.lift.shots import Shots

__all__ = [
    "GuidanceConfig",
    "Lifted",
    "MakeViews",
    "ScoreGuidance",
    "Shots",
    "input_camera",
    "lift",
    "view_plan",
]
