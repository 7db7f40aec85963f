"""Cameras, rays, poses, paths and boxes."""

from unflat.geometry.box import BoxHits, intersect_box
from unflat.geometry.camera import Camera, CameraKind, invert_rigid, rigid
from unflat.geometry.pose import (
    look_at,
    orbit_coordinates,
    orbit_pose,
    rotation_about,
    rotation_from_vector,
)
from unflat.geometry.rays import Rays, camera_rays, depth_per_distance, image_rays, pixel_grid
from unflat.geometry.trajectory import orbit, spiral, turn_about_pivot, wiggle

__all__ = [
    "BoxHits",
    "Camera",
    "CameraKind",
    "Rays",
    "camera_rays",
    "depth_per_distance",
    "image_rays",
    "intersect_box",
    "invert_rigid",
    "look_at",
    "orbit",
    "orbit_coordinates",
    "orbit_pose",
    "pixel_grid",
    "rigid",
    "rotation_about",
    "rotation_from_vector",
    "spiral",
    "turn_about_pivot",
    "wiggle",
]
