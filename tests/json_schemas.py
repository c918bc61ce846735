"""The published JSON schemas as an oracle: every object that a test prints with --json is held against its schema."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

SCHEMAS = files("ckptool") / "report" / "schemas"


def schema_named(name: str) -> dict[str, Any]:
    """The published schema of ``ckptool.diff/1``."""
    command, version = name.removeprefix("ckptool.").split("/")
    found: dict[str, Any] = json.loads((SCHEMAS / f"{command}.{version}.schema.json").read_text(encoding="utf-8"))
    return found


def closed(schema: Any) -> Any:
    """The schema without room for fields that it does not name: a new field must be published."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    more = {name: closed(value) for name, value in schema.items()}
    return {"additionalProperties": False, **more} if "properties" in more and "type" in more else more


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(closed(schema_named(name)))


def validate(text: str) -> None:
    """Hold what a command printed against the schema that it names; nothing for what is no such object."""
    if not text.startswith('{"schema": "ckptool.'):
        return
    try:
        said = json.loads(text)
    except json.JSONDecodeError:
        return  # several outputs in one capture: the test itself reads them
    errors = [f"{error.json_path}: {error.message[:300]}" for error in _validator(said["schema"]).iter_errors(said)]
    assert not errors, errors[:5]
