"""Lazy deblurring of image stacks and photos of any size with a mixture of experts.

The public names, nothing else. Each is imported when it is first used, so that ``import demoe``
is quick and loads no torch.
"""

from importlib import import_module
from importlib.metadata import version
from sys import modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demoe.errors import AxesError as AxesError
    from demoe.errors import Cancelled as Cancelled
    from demoe.errors import DemoeError as DemoeError
    from demoe.errors import DeviceError as DeviceError
    from demoe.errors import ImageError as ImageError
    from demoe.errors import OutputError as OutputError
    from demoe.errors import RecipeError as RecipeError
    from demoe.errors import WeightsError as WeightsError
    from demoe.image import LazyImage as LazyImage
    from demoe.io import open_image as open_image
    from demoe.lazy import Deblurred as Deblurred
    from demoe.lazy import deblur as deblur
    from demoe.model import load_model as load_model
    from demoe.recipe import TASKS as TASKS
    from demoe.recipe import Recipe as Recipe
    from demoe.run import Report as Report
    from demoe.run import run as run
    from demoe.run import save as save
    from demoe.words import TextGates as TextGates
    from demoe.words import task_from_text as task_from_text

    __version__: str

_HOME = {
    "AxesError": "errors",
    "Cancelled": "errors",
    "Deblurred": "lazy",
    "DemoeError": "errors",
    "DeviceError": "errors",
    "ImageError": "errors",
    "LazyImage": "image",
    "OutputError": "errors",
    "Recipe": "recipe",
    "RecipeError": "errors",
    "Report": "run",
    "TASKS": "recipe",
    "TextGates": "words",
    "WeightsError": "errors",
    "deblur": "lazy",
    "load_model": "model",
    "open_image": "io",
    "run": "run",
    "save": "run",
    "task_from_text": "words",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = version("napari-demoe")
    elif name in _HOME:
        value = getattr(import_module(f"demoe.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'demoe' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])


class _Package(ModuleType):
    """Keeps the function ``demoe.run``: importing the module of that name must not hide it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


modules[__name__].__class__ = _Package
