"""The blur itself: its kernel (point spread function), and how it is undone."""
