"""Learning what a guess of a kernel is worth, and how to choose among restored pictures."""
