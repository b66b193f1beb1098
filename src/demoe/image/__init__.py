"""What an image is: pixels that are read when they are asked for, axes, intensities."""
