"""The DeMoE network (arXiv 2508.06228)."""
