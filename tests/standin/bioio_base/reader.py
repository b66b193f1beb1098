"""The class that plugins of bioio derive from, with what is asked of it."""


class Reader:
    def _read_indexed(self, given_dims, dim_specs):
        raise AssertionError("the usual one reads the whole file")
