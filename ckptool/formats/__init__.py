"""Container formats: one file for each that is read, chosen by content and never by extension.

Knows core and storage. `opening` opens anything, `registry` says which module reads which kind of file.
"""
