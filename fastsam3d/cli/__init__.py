"""The command line: `python -m fastsam3d`, `infer.py` and `infer_scene.py`."""
