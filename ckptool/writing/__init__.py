"""What runs a plan: lays files out, moves and computes bytes, and puts the output in its place."""
