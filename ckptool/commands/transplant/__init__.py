"""transplant: a checkpoint's weights into a model of another make."""
