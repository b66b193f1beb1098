"""The network as OpenVINO graphs: the same arithmetic as PyTorch's, faster on a CPU.

Graphs hold the pooling fixed and take the channel attention as an input, so one graph serves every
plane; each set of experts that meet in a tile has a graph of its own, which also does not run the
others.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
import openvino.opset15 as ops
import torch
from torch import Tensor

from demoe.model.backends.openvino import (
    PARTS,
    Graphs,
    Node,
    convolve,
    gate,
    normalise,
    run,
    split_halves,
)
from demoe.model.demoe.network import DeMoENet
from demoe.model.nafnet import NAFBlock, named_blocks

if TYPE_CHECKING:
    from demoe.model.protocol import Statistics

Blocks = dict[str, int]
"""Channels of blocks by their names."""


class OpenVINOBackend:
    """Runs a network's graphs; see `demoe.model.backends.base.Backend`.

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
        self._graphs = Graphs(self._build, half=half)

    def features(self, padded: Tensor, *, together: bool, recurring: bool = False) -> Tensor:
        """Return the deepest features, of samples pooled together or of pictures each by itself."""
        graph, _ = self._prepared((), "together" if together else "apart", padded, recurring)
        return run(graph, [self._picture(padded)])[0]

    def restore(
        self,
        padded: Tensor,
        weights: Tensor,
        statistics: Statistics | None,
        recurring: bool = False,
    ) -> tuple[Tensor, Statistics]:
        """Return the restored samples and the attention of all blocks that ran."""
        pooling = "together" if statistics is None else "held"
        (restored, *found), blocks = self._run(pooling, padded, weights, statistics, recurring)
        return restored + padded, statistics or _parted(found[0], blocks)

    def survey(self, padded: Tensor, weights: Tensor) -> Statistics:
        """Return the attention of all blocks that run; what only the picture needs is left out."""
        (found,), blocks = self._run("surveyed", padded, weights, None, recurring=True)
        return _parted(found, blocks)

    def _run(
        self,
        pooling: str,
        padded: Tensor,
        weights: Tensor,
        statistics: Statistics | None,
        recurring: bool,
    ) -> tuple[list[Tensor], Blocks]:
        """Run the graph of the experts that have weight; return its outputs and its blocks."""
        experts = tuple(weights.amax(dim=(0, 2, 3)).nonzero()[:, 0].tolist())
        m = self.network.multiple
        cells = (padded.shape[2] // m, padded.shape[3] // m)
        mixing = weights[:, list(experts)].expand(len(padded), -1, *cells)
        graph, blocks = self._prepared(experts, pooling, padded, recurring)
        inputs = [self._picture(padded)]
        if len(experts) > 1:
            inputs.append(mixing.contiguous().numpy())
        if statistics is not None:
            inputs.append(torch.cat([statistics[name].flatten() for name in blocks]).numpy())
        return run(graph, inputs), blocks

    def _picture(self, padded: Tensor) -> Any:
        """Return samples as the graphs take them."""
        return split_halves(padded) if self.half else padded.contiguous().numpy()

    def _prepared(
        self, experts: tuple[int, ...], pooling: str, padded: Tensor, recurring: bool
    ) -> tuple[Any, Blocks]:
        """Return a compiled graph and its blocks."""
        # A graph for one size alone is faster and takes half the memory.
        return self._graphs.get(experts, pooling, tuple(padded.shape) if recurring else None)

    def _build(
        self, experts: tuple[int, ...], pooling: str, shape: tuple[int, ...] | None
    ) -> tuple[openvino.Model, Blocks]:
        graph = _Graph(self.network, experts, pooling, self.half)
        model = graph.build()
        if shape is not None:
            model.reshape(graph.shapes(shape))
        return model, graph.blocks


class _Graph:
    """Builds the graph of a network for some experts; nodes are NCHW as in PyTorch.

    Pooling is "held" at an attention that is an input; or it is over all pictures "together", and
    the attention of a restored one is an output, or "surveyed", and that is the only one; or it is
    "apart" over each of them. In half precision, pictures come as `split_halves`.
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
        features = convolve(picture, network.intro, halves=self.half)
        skips = []
        for encoder, down in zip(network.encoders, network.downs, strict=True):
            features = self._chain(encoder, features)
            skips.append(features)
            features = convolve(features, down)
        if self.experts:
            features = self._mix(0, self._chain(network.middle_blks, features))
            for level, (up, decoder) in enumerate(
                zip(network.ups, network.decoders, strict=True), 1
            ):
                features = ops.depth_to_space(convolve(features, up[0]), "depth_first", 2)
                features = self._chain(decoder, ops.add(features, skips.pop()))
                features = self._mix(level, features)
            features = convolve(features, network.ending)
        results = [] if self.pooling == "surveyed" else [features]
        if self.pooling in ("together", "surveyed") and self.experts:
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
        """Return the output of a block, as `demoe.model.nafnet.NAFBlock` has it."""
        y = normalise(x, block.norm1.eps)
        y = gate(
            convolve(convolve(y, block.conv1, norm=block.norm1, part=part), block.conv2, part=part)
            for part in PARTS
        )
        if self.pooling != "held":
            axes = [2, 3] if self.pooling == "apart" else [0, 2, 3]
            pooled = ops.reduce_mean(y, np.array(axes), keep_dims=True)
            self.attention[block] = convolve(pooled, block.sca[1])
        y = convolve(ops.multiply(y, self.attention[block]), block.conv3, scale=block.beta)
        x = ops.add(x, y)
        normal = normalise(x, block.norm2.eps)
        y = gate(convolve(normal, block.conv4, norm=block.norm2, part=half) for half in PARTS)
        return ops.add(x, convolve(y, block.conv5, scale=block.gamma))


def _parted(found: Tensor, blocks: Blocks) -> Statistics:
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
