"""What teaches the classifier of sentences."""
