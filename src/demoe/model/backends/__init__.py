"""What runs a network, whichever it is."""
