"""One file or folder per command: a request on headers becomes one frozen result.

Knows models, matching, recipes and below. `beside` is for what lies beside the weights.
"""
