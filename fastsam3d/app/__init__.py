"""The page in the browser and the 3D viewer, in which people look at results."""
