from __future__ import annotations

from collections.abc import Iterator

from ckptool.commands.checks import Rule
from ckptool.commands.checks.case import Case, Found
from ckptool.core.errors import UnsafeError

RULE = Rule("readable", anyway=True, order=10)


def readable(case: Case) -> Iterator[Found]:
    """The file is not a checkpoint, or is damaged.

    Found: files that are cut short, garbage, empty, a Git LFS pointer that was never pulled, a web page that a failed
    download saved under the name of a model, an archive that was not unpacked, shards that are missing; and checkpoints
    without a single tensor (a warning). Files are judged by their content; the extension is not asked.

    Why: such a file fails where it is loaded, which is often after the job has waited for a GPU, and with a message
    about pickles that does not say what is wrong.

    What to do: what the help line says: git lfs pull, download again, unpack.

    Policy: it always runs.

        levels.readable = "error"
    """
    if case.error is None:
        if not case.checkpoint and not case.target.is_companion:
            others = case.checkpoint.selection.others
            help = f"other dicts of tensors: {', '.join(others)} (select = in the policy takes one)" if others else ""
            yield Found("there are no tensors in it", help=help, level="warning", short="empty")
    elif not isinstance(case.error, UnsafeError) and not case.is_explained:
        yield Found(case.error.message, help=case.error.hint or "", short="refused")
