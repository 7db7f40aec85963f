"""One picture of an object to 3D, with any model of new views."""

from unflat.systems.zero123.lift.guidance import GuidanceConfig, ScoreGuidance
from unflat.systems.zero123.lift.lift import Lifted, MakeViews, lift, view_plan
from unflat.systems.zero123.lift.shots import Shots

__all__ = [
    "GuidanceConfig",
    "Lifted",
    "MakeViews",
    "ScoreGuidance",
    "Shots",
    "lift",
    "view_plan",
]
