"""One plugin, for .nd2 and an unknown suffix, that takes stacks for blocks unless told otherwise.

A second, for .lif, reads parts of planes and takes no `chunk_dims`, as those of ND2 and CZI.
"""

import json
from collections import namedtuple
from types import SimpleNamespace

import dask.array as da
import numpy as np
from bioio_base.reader import Reader
from dask import delayed

Entry = namedtuple("Entry", "entrypoint metadata")
Dims = namedtuple("Dims", "order shape")
read = []  # what was read of pixels


class Stacks(Reader):
    def __init__(self, image, chunk_dims=("Z", "Y", "X", "S")):
        self.path, self.chunk_dims, self.scene = str(image), chunk_dims, 0
        with np.load(self.path) as file:
            self.about = json.loads(str(file["about"]))
        self.about = {"scale": {}, "units": {}, "channels": None, **self.about}

    @property
    def dims(self):
        return Dims(self.about["dims"], self.about["shapes"][self.scene])

    @property
    def dtype(self):
        return np.dtype(self.about["dtype"])

    def get_image_dask_data(self, order):
        own, shape = self.dims
        block = [n if a in self.chunk_dims else 1 for a, n in zip(own, shape, strict=True)]
        counts = [n // side for n, side in zip(shape, block, strict=True)]
        blocks = np.empty(counts, object)
        for place in np.ndindex(*counts):
            one = delayed(self._block)(self.scene, place, block)
            blocks[place] = da.from_delayed(one, tuple(block), self.dtype)
        data = da.block(blocks.tolist())
        missing = [letter for letter in order if letter not in own]
        data = data[(None,) * len(missing)]
        letters = "".join(missing) + own
        return data.transpose([letters.index(letter) for letter in order])

    def _block(self, scene, place, block):
        read.append((scene, place, tuple(block)))
        with np.load(self.path) as file:
            pixels = file[f"scene{scene}"]
        box = tuple(slice(a * n, (a + 1) * n) for a, n in zip(place, block, strict=True))
        return pixels[box]


class Parts(Stacks):
    def __init__(self, image):
        super().__init__(image)

    def _read_indexed(self, given_dims, dim_specs):
        read.append((self.scene, tuple(dim_specs)))
        with np.load(self.path) as file:
            return file[f"scene{self.scene}"][tuple(dim_specs)]

    def get_image_data(self, order, **box):
        own = self.dims.order
        pixels = self._read_indexed(own, [box[letter] for letter in own])
        missing = [letter for letter in order if letter not in own]
        letters = "".join(missing) + own
        pixels = pixels[(None,) * len(missing)]
        return pixels.transpose([letters.index(letter) for letter in order])


def get_plugins(use_cache):
    def entry(reader):
        name = SimpleNamespace(name=f"bioio-{reader.__name__.lower()}")
        return Entry(name, SimpleNamespace(get_reader=lambda: reader))

    return {".nd2": [entry(Stacks)], ".strange": [entry(Stacks)], ".lif": [entry(Parts)]}
