"""Stands in for bioio 3 where it is not installed: the calls of `demoe.io.bio`, as it has them.

A file is a numpy archive: an array a scene, and `about` with JSON (dims, scale, units, channels).
`tests/test_io_formats.py` runs the same code on real files where the real package is installed.
"""

from collections import namedtuple

from bioio_base.reader import Reader

Sizes = namedtuple("Sizes", "T C Z Y X")
Property = namedtuple("Property", "type unit")
Dims = namedtuple("Dims", "order shape")


class BioImage:
    def __init__(self, image, reader=None, **kwargs):
        assert issubclass(reader, Reader)
        try:
            self.reader = reader(image, **kwargs)
        except Exception as error:
            raise ValueError(f"None could.\nReaders attempted:\n  - Reader: {error}") from error

    @property
    def scenes(self):
        return tuple(self.reader.about["scenes"])

    def set_scene(self, number):
        self.reader.scene = number

    @property
    def dims(self):
        return self._order()

    @property
    def shape(self):
        return self._order().shape

    def _order(self):
        mine = dict(zip(*self.reader.dims, strict=True))
        order = "TCZYXS" if "S" in mine else "TCZYX"
        order = "M" + order if "M" in mine else order
        return Dims(order, tuple(mine.get(letter, 1) for letter in order))

    @property
    def dtype(self):
        return self.reader.dtype

    @property
    def scale(self):
        return Sizes(*(self.reader.about["scale"].get(letter) for letter in "TCZYX"))

    @property
    def dimension_properties(self):
        units = self.reader.about["units"]
        return Sizes(*(Property(None, units.get(letter)) for letter in "TCZYX"))

    @property
    def channel_names(self):
        return self.reader.about["channels"]

    def get_image_dask_data(self, order):
        raise NotImplementedError("no mosaics are put together")

    def get_image_data(self, order, **box):
        return self.reader.get_image_data(order, **box)
