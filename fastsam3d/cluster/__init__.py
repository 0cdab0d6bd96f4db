"""Many pictures on many devices: batches over Ray Data, and a service on Ray Serve.

Nothing else of the package imports Ray, and here it is imported inside functions only. `fastsam3d.jobs` does the work.
"""
