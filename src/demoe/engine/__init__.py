"""One tile in, one restored tile out."""
