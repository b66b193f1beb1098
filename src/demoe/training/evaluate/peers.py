"""Classical deconvolution, told what no network is told: the kernel that blurred the image.

Both methods work on light where the blur did, and see the image continued beyond its borders, so
that these cost them little. They are those of scikit-image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoe.training.blur.degradations import Psf, to_display, to_linear

Peer = Callable[[Tensor, Psf], Tensor]
"""Takes images (N, 3, H, W) in [0, 1] and what blurred them, and returns them restored."""

ITERATIONS = 10
"""Steps of Richardson-Lucy."""

BALANCE = 0.01
"""Weight of smoothness in the Wiener filter: of 0.003 to 1 the one that gained most on average."""

Plane = NDArray[np.float64]


def wiener(images: Tensor, psf: Psf) -> Tensor:
    """Deconvolve by Wiener-Hunt filtering."""
    from skimage.restoration import wiener as restore

    return _plane_by_plane(images, psf, lambda plane, kernel: restore(plane, kernel, BALANCE))


def richardson_lucy(images: Tensor, psf: Psf) -> Tensor:
    """Deconvolve by the iteration of Richardson (1972) and Lucy (1974)."""
    from skimage.restoration import richardson_lucy as restore

    return _plane_by_plane(images, psf, lambda plane, kernel: restore(plane, kernel, ITERATIONS))


PEERS: dict[str, Peer] = {"wiener": wiener, "richardson_lucy": richardson_lucy}


def _plane_by_plane(images: Tensor, psf: Psf, restore: Callable[[Plane, Plane], Any]) -> Tensor:
    values = to_linear(images) if psf.in_light else images
    kernel = psf.kernel.cpu().numpy().astype(np.float64)
    border = len(kernel)
    planes = values.flatten(0, 1).cpu().numpy().astype(np.float64)
    padded = np.pad(planes, ((0, 0), (border, border), (border, border)), mode="symmetric")
    inner = (slice(border, -border), slice(border, -border))
    restored = np.stack([restore(plane, kernel)[inner] for plane in padded])
    found = torch.from_numpy(restored).to(images).reshape(images.shape).clamp(0, 1)
    return to_display(found) if psf.in_light else found
