"""What lies beside the weights, and what becomes of it: optimizer state, module versions, moving averages."""
