"""Training and evaluation: degradations, data, the loop, and what a network is worth."""
