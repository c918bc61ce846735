"""The examples in the docstrings run, from the root of the repository, as a reader would try them."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
from conftest import ROOT

import ckptool

MODULES = ["ckptool", *(found.name for found in pkgutil.walk_packages(ckptool.__path__, "ckptool."))]


@pytest.mark.parametrize("name", [*MODULES, "tests.bench.harness"])
def test_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    module = importlib.import_module(name)
    extra = {"ckptool": ckptool}
    result = doctest.testmod(module, extraglobs=extra, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
