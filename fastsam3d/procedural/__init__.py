"""Procedural objects, views and scenes: data for training and evaluation without any download."""
