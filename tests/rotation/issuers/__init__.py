"""The issuers that the common suite runs against: every module here that names its cases in ``CASES``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

import pytest
from tests.rotation.cases import IssuerCase

CASES: tuple[type[IssuerCase], ...] = tuple(
    case
    for module in sorted(found.name for found in pkgutil.iter_modules(__path__))
    for case in importlib.import_module(f"{__name__}.{module}").CASES
)


def over(chosen: Callable[[type[IssuerCase]], bool] = lambda case: True) -> pytest.MarkDecorator:
    """Run a test, which asks for the fixture ``case``, once for each case that fits."""
    fitting = [pytest.param(case, id=case.id) for case in CASES if chosen(case)]
    return pytest.mark.parametrize("case", fitting, indirect=True)
