"""napari plugin of demoe: reader, writer, sample data and the widget "Deblur (DeMoE)".

`deblur_layer` deblurs a layer from the viewer's console. Nothing is imported here before it is
used: the viewer loads each part when it needs it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["deblur_layer"]


def __getattr__(name: str) -> Any:
    if name == "deblur_layer":
        from napari_demoe._console import deblur_layer

        return deblur_layer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
