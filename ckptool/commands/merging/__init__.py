"""Several checkpoints made one: unions, merge methods, LoRA adapters."""
