"""Pickles, read and written inertly: nothing in them is ever run."""
