"""A plan as the Python API gives it: it can be written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from ckptool.api.given import checked
from ckptool.api.options import WriteOptions, chosen_by, share_of
from ckptool.api.results import Written
from ckptool.api.shown import Shown
from ckptool.commands.beside.complete import complete
from ckptool.core import plan as core
from ckptool.core.bytes import PathText
from ckptool.core.errors import PlanError
from ckptool.engine.apply import apply
from ckptool.engine.encode import container_of
from ckptool.engine.sharing import apply_share
from ckptool.storage.paths import local_path

if TYPE_CHECKING:
    from ckptool.report.document import Document


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Plan(Shown, core.Plan):
    """A whole output, decided on headers; `apply` writes it. See `ckptool.core.plan.Plan` for what it holds."""

    def _document(self) -> Document:
        from ckptool.report.document_plan import plan_document

        return plan_document(self, [str(checkpoint.path) for checkpoint in self.inputs], "preview")

    @checked
    def apply(
        self,
        out: PathText,
        *,
        force: bool = False,
        max_shard: int | None = None,
        to: str | None = None,
        part: tuple[int, int] | None = None,
        resume: bool = False,
        progress: Callable[[int, int], None] | None = None,
        **options: Unpack[WriteOptions],
    ) -> Written:
        """Write the output: complete, checked against the plan, or not at all.

        Args:
            out: where; the ending says the format: `.pth .pt .bin .ckpt` a torch file, `.safetensors`, none a folder of
                safetensors shards with their index. ``s3://BUCKET/KEY``, ``gs://`` and ``az://`` are places, too.
            force: replace an existing output.
            max_shard: bytes of one shard, for a folder.
            to: the container where the ending does not say it: "torch", "safetensors", "folder".
            part: (2, 8) writes the second of eight parts of a folder, other processes the others; whichever is last
                completes it. Until then `missing` of what is returned says how many files are not there.
            resume: write what is missing of a folder, nothing if it is complete; refuse if inputs or options changed
                since it was begun.
            progress: told (bytes done, bytes in all), from any thread.
            tied: for safetensors, what becomes of tensors that share their bytes: "clone" or "keep-first".
            only_weights: leave out everything that is not a weight.
            drop_optimizer: leave out optimizer state, where it cannot follow its parameters.
            optimizer_as_is: keep it unchanged instead.
            keep_unknown: carry objects of unknown classes along, as inert as they are.
            allow: facts of the inputs to go on with although they refuse; the refusal names them.

        Raises:
            PlanError: the plan has problems, or does not do what its recipe expects; nothing is written.
            OutputError: the output cannot be written as asked; nothing is written.

        Example:
            >>> import ckptool, tempfile
            >>> plan = ckptool.plan_filter("fixtures/resnet18.pth", [("drop", "fc.*")], dtype="bf16")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     plan.apply(f"{folder}/body.safetensors").tensors
            120
        """
        target = local_path(out)
        plan = complete(self, container_of(target, to), chosen_by(options))
        if plan.unmet and not plan.problems:
            raise PlanError(
                "; ".join(problem.message for problem in plan.unmet), hint="the recipe's expect says what is to come"
            )
        if part is None and not resume:
            return Written.of(apply(plan, target, force=force, max_shard=max_shard, progress=progress))
        share = share_of(part or (1, 1))
        return Written.of(
            apply_share(plan, target, share, force=force, max_shard=max_shard, resume=resume, progress=progress)
        )
