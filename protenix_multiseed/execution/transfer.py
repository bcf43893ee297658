"""Copies to and from the device while it computes: features ahead of need, results behind it.

On a GPU both use pinned memory and a CUDA stream of their own. On a CPU the same code copies at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from protenix_multiseed.features.layout import PAIR_TEMPLATE_FEATURES, expand_templates
from protenix_multiseed.types import Features

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
POLL_SECONDS = 0.1


class Transfer:
    """Both directions of one device, with a thread for each."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._arriving, self._leaving = _stream(device), _stream(device)
        self._inbox, self._outbox = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("inbox", "outbox"))

    def close(self) -> None:
        """Let the threads end after their current copy."""
        for box in (self._inbox, self._outbox):
            box.shutdown(wait=False, cancel_futures=True)

    def ahead(
        self, coming: Iterable[_Item], send: Callable[[_Item], _Made], should_stop: Callable[[], bool]
    ) -> Iterator[_Made]:
        """What ``send`` makes of each item, the next one in the background while the caller uses the last.

        Args:
            should_stop: Asked while an item is waited for; once it says so, no more items come.
        """
        iterator = iter(coming)
        end = object()

        def take() -> Any:
            item = next(iterator, end)
            return end if item is end else send(item)  # type: ignore[arg-type]

        waiting = self._inbox.submit(take)
        while True:
            while not waiting.done():
                if should_stop():
                    return
                wait([waiting], timeout=POLL_SECONDS)
            if (made := waiting.result()) is end:
                return
            waiting = self._inbox.submit(take)
            yield made

    def upload(self, features: Features) -> "Arriving":
        """Send a job's compact features to the device; returns before they are there."""
        arrays = expand_templates(features.arrays)
        # Pair features of real templates are large: they wait in pinned memory until the job's turn.
        arrays = {key: self._send(value, stays=key in PAIR_TEMPLATE_FEATURES) for key, value in arrays.items()}
        seeds = tuple(
            replace(seed, ref_pos=self._send(seed.ref_pos), has_frame=self._send(seed.has_frame))
            for seed in features.seeds
        )
        event = None if self._arriving is None else self._arriving.record_event()  # type: ignore[no-untyped-call]
        return Arriving(replace(features, arrays=arrays, seeds=seeds), event)

    def download(self, raw: Any, make: Callable[[Any], _Made]) -> "Future[_Made]":
        """Fetch a tree of device tensors and make something of it on the CPU, while the device computes."""
        if self._leaving is None:
            return self._outbox.submit(make, raw)
        self._leaving.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._leaving):
            fetched = _fetch(raw)
            event = self._leaving.record_event()  # type: ignore[no-untyped-call]

        def arrive(_: Any) -> _Made:  # holds the device's tensors, which are read until the event
            event.synchronize()
            return make(fetched)

        return self._outbox.submit(arrive, raw)

    def _send(self, value: Any, *, stays: bool = False) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        tensor = torch.tensor(value)
        if self._arriving is None:
            return tensor
        with torch.cuda.stream(self._arriving):
            pinned = tensor.pin_memory()
            return pinned if stays else pinned.to(self._device, non_blocking=True)


class Arriving:
    """Features on their way to the device."""

    def __init__(self, features: Features, event: "torch.cuda.Event | None" = None) -> None:
        self.features, self._event = features, event

    def wait(self, device: torch.device) -> None:
        """Have work that is queued on the device from now on wait for the features."""
        if self._event is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self._event)
            for tensor in _device_tensors(self.features):
                tensor.record_stream(stream)  # else their memory could be given to the next upload while in use


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _device_tensors(features: Features) -> Iterator[torch.Tensor]:
    placed = [*features.arrays.values(), *(part for seed in features.seeds for part in (seed.ref_pos, seed.has_frame))]
    return (value for value in placed if isinstance(value, torch.Tensor) and value.is_cuda)


def _fetch(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _fetch(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fetch(item) for item in value]
    if isinstance(value, torch.Tensor) and value.device.type != "cpu":
        return torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
    return value
