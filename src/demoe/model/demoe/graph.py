"""The network as an OpenVINO graph: the same arithmetic as PyTorch's, faster on a CPU.

OpenVINO is an optional package. Graphs hold the pooling fixed and take the channel attention as an
input, so one graph serves every plane; each set of experts that meet in a tile has a graph of its
own, which also does not run the others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import openvino
import openvino.opset15 as ops
import torch
from torch import Tensor

from demoe.model.demoe.blocks import NAFBlock
from demoe.model.demoe.eager import Attention, named_blocks
from demoe.model.demoe.network import DeMoENet

_HALVES = ((0, 2), (1, 2))

GRAPHS = 8
"""Compiled graphs that are kept, one a set of experts; each holds its own weights."""

Node = Any  # the package describes its graph nodes to no type checker


class OpenVINOBackend:
    """Runs a network's graphs; see `demoe.model.demoe.eager.Backend`.

    Parameters
    ----------
    network : DeMoENet
        On the CPU, in evaluation mode.
    half : bool
        Compute in bfloat16, for CPUs that multiply it.
    """

    def __init__(self, network: DeMoENet, *, half: bool = False) -> None:
        self.network = network
        self.half = half
        self.name = "openvino, bfloat16" if half else "openvino"
        self._core = openvino.Core()
        self._compiled = functools.lru_cache(maxsize=GRAPHS)(self._compile)
        self._last: Any = None

    def features(self, padded: Tensor, *, together: bool, recurring: bool = False) -> Tensor:
        """Return the deepest features, of samples pooled together or of pictures each by itself."""
        pooling = "together" if together else "apart"
        graph, _ = self._prepared((), pooling, padded, recurring)
        found: Any = graph([self._picture(padded)])[0]
        return torch.from_numpy(found.copy())  # without a copy the next run would overwrite it

    def restore(
        self,
        padded: Tensor,
        weights: Tensor,
        attention: Attention | None,
        recurring: bool = False,
    ) -> tuple[Tensor, Attention]:
        """Return the restored samples and the attention of all blocks that ran."""
        pooling = "together" if attention is None else "held"
        (restored, *found), blocks = self._run(pooling, padded, weights, attention, recurring)
        return restored + padded, attention or _attention(found[0], blocks)

    def attend(self, padded: Tensor, weights: Tensor) -> Attention:
        """Return the attention of all blocks that run; what only the picture needs is left out."""
        (found,), blocks = self._run("attended", padded, weights, None, recurring=True)
        return _attention(found, blocks)

    def _run(
        self,
        pooling: str,
        padded: Tensor,
        weights: Tensor,
        attention: Attention | None,
        recurring: bool,
    ) -> tuple[list[Tensor], dict[str, int]]:
        """Run the graph of the experts that have weight; return its outputs and its blocks."""
        experts = tuple(weights.amax(dim=(0, 2, 3)).nonzero()[:, 0].tolist())
        m = self.network.config.multiple
        cells = (padded.shape[2] // m, padded.shape[3] // m)
        mixing = weights[:, list(experts)].expand(len(padded), -1, *cells)
        graph, blocks = self._prepared(experts, pooling, padded, recurring)
        inputs = [self._picture(padded)]
        if len(experts) > 1:
            inputs.append(mixing.contiguous().numpy())
        if attention is not None:
            inputs.append(torch.cat([attention[name].flatten() for name in blocks]).numpy())
        # Without a copy they would be overwritten by the next run.
        return [torch.from_numpy(array.copy()) for array in graph(inputs).values()], blocks

    def _picture(self, padded: Tensor) -> Any:
        """Return samples as the graphs take them."""
        return _halves(padded) if self.half else padded.contiguous().numpy()

    def _prepared(
        self, experts: tuple[int, ...], pooling: str, padded: Tensor, recurring: bool
    ) -> tuple[Any, dict[str, int]]:
        """Return a compiled graph, alone in memory, and the channels of its blocks by name."""
        # A graph for one size alone is faster and takes half the memory.
        shape = tuple(padded.shape) if recurring else None
        graph, blocks = self._compiled(experts, pooling, shape)
        if self._last not in (None, graph):
            self._last.release_memory()
        self._last = graph
        return graph, blocks

    def _compile(
        self, experts: tuple[int, ...], pooling: str, shape: tuple[int, ...] | None
    ) -> tuple[Any, dict[str, int]]:
        """Compile a graph; see `_prepared`."""
        graph = _Graph(self.network, experts, pooling, self.half)
        model = graph.build()
        if shape is not None:
            model.reshape(graph.shapes(shape))
        hint = "bf16" if self.half else "f32"
        settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        return self._core.compile_model(model, "CPU", settings), graph.blocks


class _Graph:
    """Builds the graph of a network for some experts; nodes are NCHW as in PyTorch.

    Pooling is "held" at an attention that is an input; or it is over all pictures "together", and
    the attention of a restored one is an output, or "attended", and that is the only one; or it is
    "apart" over each of them. In half precision, pictures come as `_halves`.
    """

    def __init__(
        self, network: DeMoENet, experts: tuple[int, ...], pooling: str, half: bool
    ) -> None:
        self.network: Any = network  # torch knows no types of what its modules hold
        self.experts = experts
        self.blocks = {
            name: block.conv3.in_channels
            for name, block in named_blocks(network)
            if _runs(name, experts)
        }
        self.half = half
        kind, channels = (openvino.Type.bf16, 9) if half else (openvino.Type.f32, 3)
        self.picture = ops.parameter([-1, channels, -1, -1], kind, name="picture")
        self.inputs = [self.picture]
        if len(experts) > 1:
            self.weights = ops.parameter([-1, len(experts), -1, -1], np.float32, name="weights")
            self.inputs.append(self.weights)
        self.attention: dict[NAFBlock, Node] = {}
        self.pooling = pooling
        if pooling == "held":
            joined = ops.parameter([sum(self.blocks.values())], np.float32, name="attention")
            self.inputs.append(joined)
            parts = ops.variadic_split(joined, 0, list(self.blocks.values())).outputs()
            found = dict(named_blocks(network))
            for (name, width), part in zip(self.blocks.items(), parts, strict=True):
                self.attention[found[name]] = ops.reshape(part, [1, width, 1, 1], False)

    def build(self) -> openvino.Model:
        """Return the graph; it gives the correction, or features where no expert runs."""
        network = self.network
        picture = ops.convert(self.picture, np.float32) if self.half else self.picture
        features = _convolve(picture, network.intro, halves=self.half)
        skips = []
        for encoder, down in zip(network.encoders, network.downs, strict=True):
            features = self._chain(encoder, features)
            skips.append(features)
            features = _convolve(features, down)
        if self.experts:
            features = self._mix(0, self._chain(network.middle_blks, features))
            for level, (up, decoder) in enumerate(
                zip(network.ups, network.decoders, strict=True), 1
            ):
                features = ops.depth_to_space(_convolve(features, up[0]), "depth_first", 2)
                features = self._chain(decoder, ops.add(features, skips.pop()))
                features = self._mix(level, features)
            features = _convolve(features, network.ending)
        results = [] if self.pooling == "attended" else [features]
        if self.pooling in ("together", "attended") and self.experts:
            found = dict(named_blocks(network))
            flat = [ops.reshape(self.attention[found[name]], [-1], False) for name in self.blocks]
            results.append(ops.concat(flat, 0))
        return openvino.Model(results, self.inputs, "demoe")

    def shapes(self, picture: tuple[int, ...]) -> dict[int, list[int]]:
        """Return the shapes of the inputs, by position, for pictures of one size."""
        shapes = {0: [picture[0], 9 if self.half else 3, *picture[2:]]}
        if len(self.experts) > 1:
            m = self.network.config.multiple
            shapes[1] = [picture[0], len(self.experts), picture[2] // m, picture[3] // m]
        return shapes

    def _chain(self, chain: Any, x: Node) -> Node:
        for block in chain.modules_list:
            x = self._block(block, x)
        return x

    def _mix(self, level: int, x: Node) -> Node:
        mixture = self.network.experts[level]
        chosen = [self._block(mixture.experts[e], x) for e in self.experts]
        if len(chosen) == 1:
            return chosen[0]
        weights = self.weights
        if level:
            size = ops.multiply(ops.slice(ops.shape_of(weights), [2], [4], [1]), np.int64(2**level))
            weights = ops.interpolate(
                weights,
                size,
                "linear_onnx",
                "sizes",
                axes=[2, 3],
                coordinate_transformation_mode="half_pixel",
            )
        parts = ops.split(weights, 1, len(chosen)).outputs()
        weighted = [ops.multiply(y, part) for y, part in zip(chosen, parts, strict=True)]
        return functools.reduce(ops.add, weighted)

    def _block(self, block: NAFBlock, x: Node) -> Node:
        """Return the output of a block, as `demoe.model.demoe.blocks.NAFBlock` has it."""
        y = _normalise(x, block.norm1.eps)
        y = _gate(
            _convolve(
                _convolve(y, block.conv1, norm=block.norm1, part=part), block.conv2, part=part
            )
            for part in _HALVES
        )
        if self.pooling != "held":
            axes = [2, 3] if self.pooling == "apart" else [0, 2, 3]
            pooled = ops.reduce_mean(y, np.array(axes), keep_dims=True)
            self.attention[block] = _convolve(pooled, block.sca[1])
        y = _convolve(ops.multiply(y, self.attention[block]), block.conv3, scale=block.beta)
        x = ops.add(x, y)
        normal = _normalise(x, block.norm2.eps)
        y = _gate(_convolve(normal, block.conv4, norm=block.norm2, part=half) for half in _HALVES)
        return ops.add(x, _convolve(y, block.conv5, scale=block.gamma))


def _attention(found: Tensor, blocks: dict[str, int]) -> Attention:
    """Part what a graph found by blocks, whose channels are given."""
    parts = found.split(list(blocks.values()))
    return {name: part.reshape(1, -1, 1, 1) for name, part in zip(blocks, parts, strict=True)}


def _runs(name: str, experts: tuple[int, ...]) -> bool:
    """Whether a block runs for some experts; for none, only the encoder's do."""
    room, *rest = name.split(".")
    if room == "encoders":
        return True
    if room == "experts":  # experts.LEVEL.experts.EXPERT
        return int(rest[2]) in experts
    return bool(experts)


def _normalise(x: Node, eps: float) -> Node:
    """Normalise over channels, without weight and bias."""
    axis = np.int64(1)
    x = ops.subtract(x, ops.reduce_mean(x, axis, keep_dims=True))
    variance = ops.reduce_mean(ops.multiply(x, x), axis, keep_dims=True)
    return ops.multiply(x, ops.power(ops.add(variance, np.float32(eps)), np.float32(-0.5)))


def _gate(halves: Iterable[Node]) -> Node:
    """Multiply the two halves of the channels.

    They are computed apart from the start: to split what was computed together is a copy that
    OpenVINO makes on one core.
    """
    return ops.multiply(*halves)


def _convolve(
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
    be `_halves` of what the layer takes.
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


def _halves(pictures: Tensor) -> openvino.Tensor:
    """Return pictures (N, 3, H, W) as bfloat16 (N, 9, H, W): rounded, what that leaves, rounded.

    A bfloat16 has 8 digits and would change an 8-bit value by up to half a step, the largest error
    of all. Times weights that are split, too, the parts keep 16.
    """
    high = pictures.bfloat16()
    low = (pictures - high.float()).bfloat16()
    joined = torch.cat([high, low, high], dim=1).contiguous()
    values = joined.view(torch.int16).numpy()
    return openvino.Tensor(values, openvino.Shape(list(values.shape)), openvino.Type.bf16)
