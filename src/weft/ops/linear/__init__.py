"""Dense linear maps."""
