"""Signatures of functions and classes that others wrote; what stands in their annotations is not run."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping


def signature_of(function: object) -> inspect.Signature | None:
    """The signature of a function or class; None for a builtin, or one that hides it.

    From Python 3.14 on annotations are code that runs when they are asked for: they are taken as texts.

    Example:
        >>> list(signature_of(signature_of).parameters), signature_of(print) is None or True
        (['function'], True)
        >>> signature_of(3) is None
        True
    """
    try:
        if sys.version_info >= (3, 14):
            from annotationlib import Format

            return inspect.signature(function, annotation_format=Format.STRING)  # type: ignore[arg-type]
        return inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def annotations_of(function: object) -> Mapping[str, object]:
    """The annotations of a function: values where they are known, else something that stands for them.

    Example:
        >>> annotations_of(signature_of)["function"], annotations_of(3)
        ('object', {})
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format, get_annotations

        try:
            return get_annotations(function, format=Format.FORWARDREF)
        except TypeError:  # it has none
            return {}
    found = getattr(function, "__annotations__", {})
    return found if isinstance(found, Mapping) else {}
