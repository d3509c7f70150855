"""Who paints parts of pictures: inpainting and fill models of diffusers, and two that need no model."""
