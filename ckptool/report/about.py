"""What the rules of reports on comparisons and plans are about."""

from __future__ import annotations

ABOUT = {
    "changed": "tensors of equal shape and dtype hold the same values",
    "cast": "tensors have the same dtype",
    "reshaped": "tensors have the same shape",
    "renamed": "tensors have the same keys",
    "added": "no tensor is only in the new checkpoint",
    "removed": "no tensor is only in the old checkpoint",
    "other-entries": "what is not a tensor is the same",
    "problem": "the plan can be carried out",
    "expect": "the output is what the request expects of it",
    "unused-rule": "every rule of the recipe decides keys",
    "missing": "the source has every tensor of the model",
    "mismatched": "tensors have the shapes of the model",
    "unexpected": "the model has every tensor of the source",
    "note": "nothing else is to be known",
}
"""What each rule of these reports is about, in a sentence that is true where it found nothing."""
