"""Global attention prediction (GAP, Fast3D, ACM MM 2025): a small network says which objects a prompt will attend to.

`network` holds the network that this package trains, `released` the one that the authors published.
"""
