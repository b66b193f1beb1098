"""napari plugin of demoe: reader, writer, sample data and the widget "Deblur (DeMoE)".

Nothing is imported here: the viewer loads each part when it is first used.
"""
