"""Options of a run beside its inputs; the doors' tests show the rest."""

from __future__ import annotations

from typing import Any

import pytest

from dspyserve.errors import InvalidInput
from dspyserve.programs.options import run_options


def test_metadata_that_nests_too_deep_is_a_fault() -> None:
    metadata: dict[str, Any] = {}
    for _ in range(5_000):
        metadata = {"a": metadata}
    with pytest.raises(InvalidInput) as raised:
        run_options({"metadata": metadata}, "/options", ("metadata",))
    assert [fault.pointer for fault in raised.value.faults] == ["/options/metadata"]
