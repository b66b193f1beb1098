"""Networks: what they are made of, their weights, and how they are loaded."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demoe.model.loading import Model as Model
    from demoe.model.loading import load_model as load_model

__all__ = ["Model", "load_model"]


def __getattr__(name: str) -> Any:
    # Deferred, so that the zoo can list weights without loading torch.
    if name not in __all__:
        raise AttributeError(f"module 'demoe.model' has no attribute {name!r}")
    from demoe.model import loading

    return getattr(loading, name)
