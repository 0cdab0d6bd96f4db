"""Gaussians as something to look at: drawn from a camera, and gathered at the points of a surface.

- splats: activated values of Gaussians of any class, as tensors
- compositing: front-to-back blending of many rays at once
- grid, gathering: colours of surface points from the Gaussians around them
- rendering: pictures from a camera, on a CPU or a GPU
"""
