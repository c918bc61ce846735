"""The values that everyone speaks of: specs, dtypes, keys, checkpoints, plans, ops, errors.

Knows nothing but the standard library, and numpy inside functions.
"""
