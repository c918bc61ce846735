from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found, columns
from ckptool.commands.checks.settings import At, Key, PolicyReader
from ckptool.core.counts import many


def _texts(reader: PolicyReader, value: Any, at: At) -> dict[str, str | None]:
    if isinstance(value, list):
        return dict.fromkeys(reader.texts(value, at))
    found: dict[str, str | None] = {}
    for name, text in reader.table(value, at).items():
        if text is not True and not isinstance(text, str):
            reader.refuse(f"metadata.{name} is neither a text nor true", (*at, name), "true asks for any text")
        found[name] = None if text is True else text
    return found


METADATA: Key[dict[str, str | None]] = Key("metadata", _texts)
RULE = Rule("metadata", needs=(METADATA,), order=120)


def metadata(case: Case) -> Iterator[Found]:
    """The file does not say of itself what the policy asks for.

    Found: names that are not in the metadata, and names with another text. For safetensors that is `__metadata__`; for
    torch files it is what stands beside the weights, such as epoch and arch, as ckptool inspect shows it.

    Why: a released file should carry its license, its base model and its version with it; a model registry looks there.

    What to do: write the metadata where the file is saved: save_file(state, path, metadata={"license": "apache-2.0"}).

    Policy: it runs where `metadata` is set: a list of names, or names with texts (true for any text).

        metadata = {format = "pt", license = true}
    """
    setting = case.settings.get(METADATA)
    if setting is None:
        return
    said = {extra.name: extra.text for extra in case.checkpoint.extras if not extra.tensors}
    said |= case.checkpoint.metadata
    absent = [name for name in setting.value if name not in said]
    other = [(name, text) for name, text in setting.value.items() if text is not None and said.get(name, text) != text]
    if absent:
        yield Found(
            f"the metadata lack {', '.join(absent)}",
            details=columns((name, f"is to be {setting.value[name]}") for name in absent if setting.value[name]),
            place=setting.place,
            short=f"{len(absent):,} absent",
        )
    if other:
        entries = many(len(other), "entry of the metadata is", "entries of the metadata are")
        yield Found(
            f"{entries} other than in the policy",
            details=columns((name, said[name], f"is to be {text}") for name, text in other),
            place=setting.place,
            short=f"{len(other):,} other",
        )
