"""What runs a plan: lays files out, moves and computes bytes, verifies them, and puts the output in its place.

Knows formats and below. The only room that writes tensors.
"""
