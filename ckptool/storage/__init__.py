"""Bytes: where they lie and how they are read and written. Everything that depends on the system is here.

Knows core.
"""
