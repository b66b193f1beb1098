"""What blurs them."""
