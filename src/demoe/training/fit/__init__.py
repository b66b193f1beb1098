"""What fits a network to them."""
