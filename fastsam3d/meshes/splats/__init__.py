"""Draws Gaussians from a camera, and computes the colours of surface points from them.

- splats: activated values of Gaussians of any class, as tensors
- compositing: front-to-back blending of many rays at once
- grid, gathering: colours of surface points from the Gaussians around them
- rendering: pictures from a camera, on a CPU or a GPU
"""
