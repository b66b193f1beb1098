"""OpenVINO: compiled graphs that are kept, and the operations that networks are built of.

OpenVINO is an optional package. Its graphs do the same arithmetic as PyTorch, faster on a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
import openvino
import openvino.opset15 as ops
import torch
from torch import Tensor

GRAPHS = 8
"""Compiled graphs that are kept; each holds its own weights."""

PARTS = ((0, 2), (1, 2))
"""Both halves of a layer's channels, for `convolve`."""

Node = Any  # the package describes its graph nodes to no type checker


class Graphs:
    """Compiles graphs, keeps the last ones, and lets only one of them hold memory to work in.

    Parameters
    ----------
    build : callable
        Returns the graph of a key, and what else is to be kept with it.
    half : bool
        Compute in bfloat16, for CPUs that multiply it.
    """

    def __init__(
        self, build: Callable[..., tuple[openvino.Model, Any]], *, half: bool = False
    ) -> None:
        self._build = build
        self._half = half
        self._core = openvino.Core()
        self._compiled = functools.lru_cache(maxsize=GRAPHS)(self._compile)
        self._last: Any = None

    def get(self, *key: Hashable) -> tuple[Any, Any]:
        """Return a compiled graph, alone in memory, and what is kept with it."""
        graph, kept = self._compiled(*key)
        if self._last not in (None, graph):
            self._last.release_memory()
        self._last = graph
        return graph, kept

    def _compile(self, *key: Hashable) -> tuple[Any, Any]:
        model, kept = self._build(*key)
        hint = "bf16" if self._half else "f32"
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            # As many as PyTorch, whose number people and clusters set; else it takes every core.
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Else each process on a machine would bind its threads to the same first cores.
            "ENABLE_CPU_PINNING": False,
        }
        return self._core.compile_model(model, "CPU", settings), kept


def run(graph: Any, inputs: list[Any]) -> list[Tensor]:
    """Return the outputs of a compiled graph."""
    # Without a copy they would be overwritten by the next run.
    return [torch.from_numpy(array.copy()) for array in graph(inputs).values()]


def normalise(x: Node, eps: float) -> Node:
    """Normalise over channels, without weight and bias."""
    axis = np.int64(1)
    x = ops.subtract(x, ops.reduce_mean(x, axis, keep_dims=True))
    variance = ops.reduce_mean(ops.multiply(x, x), axis, keep_dims=True)
    return ops.multiply(x, ops.power(ops.add(variance, np.float32(eps)), np.float32(-0.5)))


def gate(halves: Iterable[Node]) -> Node:
    """Multiply the two halves of the channels.

    They are computed apart from the start: to split what was computed together is a copy that
    OpenVINO makes on one core.
    """
    return ops.multiply(*halves)


def convolve(
    x: Node,
    layer: Any,
    *,
    norm: Any = None,
    scale: Tensor | None = None,
    part: tuple[int, int] = (0, 1),
    halves: bool = False,
) -> Node:
    """Return a convolution's output, or one part of its channels: (which, of how many).

    A norm's weight and bias right before it and a scale right after it are folded in. The input may
    be `split_halves` of what the layer takes.
    """
    weight = layer.weight.detach().chunk(part[1])[part[0]]
    if halves:
        high = weight.bfloat16().float()
        weight = torch.cat([high, high, weight - high], dim=1)
    bias: Any = None if layer.bias is None else layer.bias.detach().chunk(part[1])[part[0]]
    if norm is not None:
        bias = bias + weight[:, :, 0, 0] @ norm.bias.detach()
        weight = weight * norm.weight.detach()[None, :, None, None]
    if scale is not None:
        bias = bias * scale.detach().flatten()
        weight = weight * scale.detach().reshape(-1, 1, 1, 1)
    stride, pad = list(layer.stride), list(layer.padding)
    if layer.groups > 1:
        kernel = ops.constant(np.ascontiguousarray(weight[:, None].numpy()))
        y = ops.group_convolution(x, kernel, stride, pad, pad, [1, 1])
    else:
        kernel = ops.constant(np.ascontiguousarray(weight.numpy()))
        y = ops.convolution(x, kernel, stride, pad, pad, [1, 1])
    if bias is None:
        return y
    return ops.add(y, ops.constant(bias.reshape(1, -1, 1, 1).numpy()))


def split_halves(pictures: Tensor) -> openvino.Tensor:
    """Return pictures (N, 3, H, W) as bfloat16 (N, 9, H, W): rounded, what that leaves, rounded.

    A bfloat16 has 8 digits and would change an 8-bit value by up to half a step, the largest error
    of all. Times weights that are split, too, the parts keep 16.
    """
    high = pictures.bfloat16()
    low = (pictures - high.float()).bfloat16()
    joined = torch.cat([high, low, high], dim=1).contiguous()
    values = joined.view(torch.int16).numpy()
    return openvino.Tensor(values, openvino.Shape(list(values.shape)), openvino.Type.bf16)
