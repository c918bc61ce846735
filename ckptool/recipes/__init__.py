"""The recipe language: rules on keys, layouts and expressions on tensors, and the built-in recipes."""
