"""Folders that the ranks of a training run wrote together, each opened as one checkpoint of whole tensors."""
