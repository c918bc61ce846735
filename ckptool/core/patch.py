"""The names by which a patch is known."""

PATCH_KEY = "ckptool.patch"
"""The entry of its metadata: counts, as JSON."""
MANIFEST = "ckptool.patch.manifest"
"""The tensor that holds the manifest."""
