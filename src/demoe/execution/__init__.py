"""Runs out of core: tiles on disk, resume, progress, cancel, cluster."""
