"""How alike two pictures are: PSNR, SSIM and LPIPS, the last two where their packages are there."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Measure = Callable[[Tensor, Tensor], Tensor]
"""Takes images and targets (N, 3, H, W) in [0, 1] and returns a number for each pair, (N,)."""

INSTALL = "`pip install 'napari-demoe[evaluate]'`"


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of each image, for a peak of 1."""
    error = (image.clamp(0, 1) - target).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp_min(1e-10).log10()


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Return the structural similarity of each image as Wang et al. (IEEE TIP 2004) define it."""
    from skimage.metrics import structural_similarity

    pairs = zip(_arrays(image), _arrays(target), strict=True)
    found = [
        structural_similarity(
            *pair,
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for pair in pairs
    ]
    return torch.tensor(found, dtype=image.dtype, device=image.device)


def _arrays(images: Tensor) -> list[Any]:
    return list(images.clamp(0, 1).cpu().numpy().astype(np.float64))


def find_measures(device: torch.device) -> tuple[dict[str, Measure], list[str]]:
    """Return the measures beside PSNR that can be taken here, and why others cannot.

    Nothing is downloaded.

    Returns
    -------
    measures : dict of str to callable
        By name: ``ssim``, ``lpips``.
    missing : list of str
        One sentence each.
    """
    measures: dict[str, Measure] = {}
    missing = []
    if find_spec("skimage") is None:
        missing.append(f"SSIM and classical peers need scikit-image: {INSTALL}.")
    else:
        measures["ssim"] = ssim
    lpips = _find_lpips(device)
    if isinstance(lpips, str):
        missing.append(f"LPIPS is left out: {lpips}.")
    else:
        measures["lpips"] = lpips
    return measures, missing


def _find_lpips(device: torch.device) -> Measure | str:
    """Return LPIPS, or why there is none."""
    if find_spec("lpips") is None or find_spec("torchvision") is None:
        return "the packages lpips and torchvision are not installed"
    try:
        models = importlib.import_module("torchvision.models")
    except (ImportError, OSError, RuntimeError) as error:  # made for another torch
        return f"torchvision does not work here ({error})"
    # The file that it would otherwise fetch.
    name = models.AlexNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    if not (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file():
        return f"its weights {name} are not on this machine"
    return _load_lpips(device)


def _load_lpips(device: torch.device) -> Measure:
    """Return LPIPS (Zhang et al., CVPR 2018) with AlexNet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision in an old way
        network = importlib.import_module("lpips").LPIPS(net="alex", verbose=False)
    network = network.to(device).eval()

    def lpips(image: Tensor, target: Tensor) -> Tensor:
        with torch.inference_mode():
            distance: Tensor = network(image.clamp(0, 1), target, normalize=True)
        return distance.flatten()

    return lpips
