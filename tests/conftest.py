"""What more than one test file needs: the fixture files, and torchvision beside a CPU build of torch."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from compileall import compile_dir
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# As the command sets it: looking for garbage among all that torch and pytest keep takes longer than the tests.
gc.set_threshold(200_000, 20, 100)
# A worker, and a process that it starts, computes on one core: the others have work of their own.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

# The same examples every time, so that a run fails for a change and not for luck; a busy machine is no failure.
# New examples: pytest --hypothesis-profile=new
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None)
settings.load_profile("same")

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once where Python was told not to: hundreds of processes of it start, each else anew."""
    if sys.dont_write_bytecode and not hasattr(config, "workerinput"):
        compile_dir(ROOT / "ckptool", quiet=2, workers=0)


@pytest.fixture
def fixtures(tmp_path: Path) -> Path:
    """A copy of the repository's `fixtures/` that a test may write into."""
    target = tmp_path / "fixtures"
    shutil.copytree(FIXTURES, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """The module, wherever its wheel was built.

    torchvision's usual wheel is linked against CUDA. Beside a CPU build of torch its compiled operators cannot be
    loaded, and its import ends in "operator torchvision::nms does not exist". The architectures need no operator: it is
    enough to declare the two schemas that the import registers fake kernels for.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision

        torchvision._schemas = library  # declared as long as this object lives
    return torchvision
