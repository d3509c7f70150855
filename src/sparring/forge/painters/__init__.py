"""Who paints parts of pictures: inpainting and fill models of diffusers, and two that need no model."""

from sparring.forge.painters.base import Painter
from sparring.forge.painters.loading import load_painter

__all__ = ["Painter", "load_painter"]
