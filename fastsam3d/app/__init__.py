"""The page in the browser, and the 3D viewer for results."""
