"""Kernels of the windows of a plane: known, or found there."""
