"""Lazy deblurring of image stacks and photos of any size with a mixture of experts.

The public names, nothing else. Each is imported when it is first used, so that ``import demoe``
is quick and loads no torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demoe.choices import TASKS as TASKS
    from demoe.errors import AxesError as AxesError
    from demoe.errors import Cancelled as Cancelled
    from demoe.errors import DemoeError as DemoeError
    from demoe.errors import DeviceError as DeviceError
    from demoe.errors import ImageError as ImageError
    from demoe.errors import OutputError as OutputError
    from demoe.errors import RecipeError as RecipeError
    from demoe.errors import WeightsError as WeightsError
    from demoe.execution.run import Report as Report
    from demoe.execution.run import run as run
    from demoe.execution.run import save as save
    from demoe.image.lazy_image import LazyImage as LazyImage
    from demoe.io import open_image as open_image
    from demoe.lazy import Deblurred as Deblurred
    from demoe.lazy import deblur as deblur
    from demoe.model import load_model as load_model
    from demoe.recipe import Recipe as Recipe
    from demoe.routing.words.classifier import TextGates as TextGates
    from demoe.routing.words.classifier import task_from_text as task_from_text

    __version__: str

_HOME = {
    "AxesError": "errors",
    "Cancelled": "errors",
    "Deblurred": "lazy",
    "DemoeError": "errors",
    "DeviceError": "errors",
    "ImageError": "errors",
    "LazyImage": "image.lazy_image",
    "OutputError": "errors",
    "Recipe": "recipe",
    "RecipeError": "errors",
    "Report": "execution.run",
    "TASKS": "choices",
    "TextGates": "routing.words.classifier",
    "WeightsError": "errors",
    "deblur": "lazy",
    "load_model": "model",
    "open_image": "io",
    "run": "execution.run",
    "save": "execution.run",
    "task_from_text": "routing.words.classifier",
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
