"""Results as text, Markdown, HTML, JSON, JUnit, SARIF, ...: one file each. All wording is here.

Knows commands and below; prints nothing.
"""
