"""Stands in for the package bioio-base, see `standin.bioio`."""
