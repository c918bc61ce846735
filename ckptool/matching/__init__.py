"""Which source key belongs to which target key, and why."""
