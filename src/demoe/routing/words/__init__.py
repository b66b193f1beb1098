"""What a sentence says is wrong with an image."""
