"""Sharp pictures to train from."""
