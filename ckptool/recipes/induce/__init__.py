"""Rules from pairs of keys: few, short, in the order of the model, and exactly what the pairs say."""
