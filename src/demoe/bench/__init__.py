"""Seconds and memory, beside the bare network and other people's tiling."""
