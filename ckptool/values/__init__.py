"""Numbers in bounded blocks: comparison kernels, statistics.

Knows engine and below.
"""
