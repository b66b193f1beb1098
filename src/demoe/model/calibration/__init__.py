"""What is measured on weights once."""
