"""protenix-ms: run many Protenix seeds in one GPU batch. Each result equals that seed run alone.

:func:`predict` and :func:`load_results` are the Python interface. They are imported when they are first used, so that
the import of this package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protenix_multiseed.api import (
        FailedError,
        Failure,
        ProtenixMsError,
        ProtenixMsWarning,
        RankedSample,
        SampleResult,
        SeedResult,
        load_results,
        predict,
    )

__version__ = "0.2.0"
__all__ = [
    "FailedError",
    "Failure",
    "ProtenixMsError",
    "ProtenixMsWarning",
    "RankedSample",
    "SampleResult",
    "SeedResult",
    "__version__",
    "load_results",
    "predict",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("protenix_multiseed.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
