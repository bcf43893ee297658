"""Copy features to the device and results from the device while it computes.

On a GPU each direction uses pinned memory and its own CUDA stream. On a CPU the same code copies at once.
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
    """The copies to and from one device, with one thread for each direction.

    Attributes:
        is_awaited: Whether the device has nothing to do, because the caller waits for the next item of :meth:`ahead`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self.is_awaited = device, False
        self._arriving, self._leaving = _stream(device), _stream(device)
        self._inbox, self._outbox = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("inbox", "outbox"))

    def close(self) -> None:
        """Tell the threads to end after their current copy. Does not wait for them."""
        for box in (self._inbox, self._outbox):
            box.shutdown(wait=False, cancel_futures=True)

    def ahead(
        self, coming: Iterable[_Item], send: Callable[[_Item], _Made], should_stop: Callable[[], bool]
    ) -> Iterator[_Made]:
        """Yield ``send(item)`` for each item. The next item is sent in the background while the caller uses this one.

        Args:
            coming: The items.
            send: Called in the background thread with each item.
            should_stop: Called while the generator waits for an item. Once it returns True, the generator ends.
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
                self.is_awaited = True
                wait([waiting], timeout=POLL_SECONDS)
            self.is_awaited = False
            if (made := waiting.result()) is end:
                return
            waiting = self._inbox.submit(take)
            yield made

    def upload(self, features: Features) -> "Arriving":
        """Start to copy a job's compact features to the device. Returns before the copy is finished."""
        arrays = expand_templates(features.arrays)
        # Pair features of real templates are large. They stay in pinned memory until the job runs.
        arrays = {key: self._send(value, stays=key in PAIR_TEMPLATE_FEATURES) for key, value in arrays.items()}
        seeds = tuple(
            replace(seed, ref_pos=self._send(seed.ref_pos), has_frame=self._send(seed.has_frame))
            for seed in features.seeds
        )
        event = None if self._arriving is None else self._arriving.record_event()  # type: ignore[no-untyped-call]
        return Arriving(replace(features, arrays=arrays, seeds=seeds), event)

    def download(self, raw: Any, make: Callable[[Any], _Made]) -> "Future[_Made]":
        """Copy nested device tensors to the CPU and call ``make`` with the copy, while the device computes."""
        if self._leaving is None:
            return self._outbox.submit(make, raw)
        self._leaving.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._leaving):
            fetched = _fetch(raw)
            event = self._leaving.record_event()  # type: ignore[no-untyped-call]

        def arrive(_: Any) -> _Made:  # the argument keeps the device tensors alive until the copy has read them
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
    """Features that are being copied to the device."""

    def __init__(self, features: Features, event: "torch.cuda.Event | None" = None) -> None:
        self.features, self._event = features, event

    def wait(self, device: torch.device) -> None:
        """Make all work that is queued on the device from now on wait for the copy."""
        if self._event is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self._event)
            for tensor in _device_tensors(self.features):
                tensor.record_stream(stream)  # else the next upload could reuse the memory while it is still read


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
