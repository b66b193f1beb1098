"""Which expert works where: gates of routing cells, from the network and from people."""
