"""The project's pages for people, and the code in them."""

import re
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "napari.md"  # its code needs a window
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced code blocks in one of the languages, in order."""
    fenced = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [code for language, code in fenced if language in languages]


def commands(page: Path) -> list[str]:
    """`demoe …` lines of shell blocks, continued lines joined."""
    text = "\n".join(blocks(page, "", "sh", "bash", "shell", "console")).replace("\\\n", " ")
    lines = [line.removeprefix("$ ").strip() for line in text.splitlines()]
    return [line for line in lines if line.startswith("demoe ")]


def lay_out_files() -> None:
    """Write the files that the examples name into the working directory."""
    random = np.random.default_rng(0)
    stack = random.integers(0, 4000, (2, 48, 64), dtype=np.uint16)
    tifffile.imwrite("stack.ome.tif", stack, metadata={"axes": "ZYX"})
    tifffile.imwrite("stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    Image.fromarray(random.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save("photo.png")
