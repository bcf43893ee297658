"""Ray itself: import it with its settings, and connect to a cluster, or start one of this machine alone."""

import contextlib
import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.execution.gpus import check_ray, chosen_gpus
from protenix_multiseed.process import handler_kept
from protenix_multiseed.upstream.environment import replaced

ray: Any = None  # the module, once it is imported
_STORE_BYTES = 80 * 2**20  # of shared memory for Ray's objects: messages are small, and /dev/shm may be
_ANSWER_SECONDS = 20.0


def import_ray(*, is_local: bool) -> None:
    """Import Ray, with the settings that it reads then.

    Args:
        is_local: Whether Ray runs on this machine alone. Then it listens on 127.0.0.1 only.

    Raises:
        ConfigError: if Ray is not installed.
    """
    check_ray()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray's own usage report
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of a change to come
    os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")  # a busy machine starts Python slowly
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # else Ray prints among the lines of the run
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if is_local:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # in spite of its name it holds for Linux too
        os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's 15 the ranking slows the GPUs' processes down
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # else Ray starts a Python process for each core
        # Ray's node looks for its own store before the store is there, then waits this long (Ray: 1 s), so often (10).
        os.environ.setdefault("RAY_raylet_client_connect_timeout_milliseconds", "50")
        os.environ.setdefault("RAY_raylet_client_num_connect_attempts", "1200")
    else:
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # Ray's 20 tries take 15 minutes
    global ray
    ray = importlib.import_module("ray")
    importlib.import_module("ray.util.scheduling_strategies")


def kind_of(config: RunConfig) -> str:
    """Return Ray's name for what each process of a GPU gets. A run on CPUs has a process for each of them."""
    return "CPU" if config.device == "cpu" else "GPU"


def connect(config: RunConfig) -> None:
    """Connect this process to the cluster of the configuration, or start one of this machine alone.

    Raises:
        ConfigError: if there is no such cluster, or no such GPU.
    """
    import_ray(is_local=config.ray is None)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _signals_kept():
        if config.ray is None:
            _start_local(config, quiet)
            return
        try:
            ray.init(address=reachable(config.ray), **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"ray: no cluster answers at {config.ray} ({str(error).splitlines()[0]}); start one with "
                "'ray start --head', or use --gpus for the GPUs of this machine"
            ) from None


def disconnect() -> None:
    """Disconnect, if there is a connection. A cluster of this machine alone ends."""
    if ray is not None:
        with _signals_kept():
            ray.shutdown()


def _start_local(config: RunConfig, quiet: dict[str, Any]) -> None:
    gpus, visible = config.gpus or "", contextlib.ExitStack()
    n_cpu, n_gpu = os.cpu_count() or 1, 0
    if kind_of(config) == "CPU":
        n_cpu = int(gpus) if gpus.isdigit() else n_cpu
    else:
        chosen = chosen_gpus(config.gpus)
        if "," in gpus:
            visible.enter_context(_visible(chosen))
        n_gpu = len(chosen)
    with visible, _without_helpers():
        ray.init(
            address="local",
            num_cpus=n_cpu,
            num_gpus=n_gpu,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )


def reachable(wanted: str) -> str:
    """Return the HOST:PORT of a cluster, which answers.

    ``auto`` is RAY_ADDRESS, or the cluster that ``ray start`` made or joined on this machine last. Ray's own ``auto``
    takes any cluster whose processes it sees, such as the private one of another run with ``--gpus``.

    Raises:
        OSError: if nothing answers there.
        ValueError: if it is no address.
    """
    address = wanted
    if wanted == "auto":
        services = importlib.import_module("ray._private.services")
        address = os.environ.get("RAY_ADDRESS") or services.find_bootstrap_address(None) or ""
        if not address:
            raise ConnectionError("RAY_ADDRESS is not set, and no 'ray start' has run on this machine")
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ValueError(f"{address!r} is not HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    return address


@contextlib.contextmanager
def _visible(gpus: list[str]) -> Iterator[None]:
    """Inside the ``with`` block the processes that start see only these GPUs. A later run may choose others."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    os.environ[name] = ",".join(gpus)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _without_helpers() -> Iterator[None]:
    """Inside the ``with`` block Ray starts no dashboard, autoscaler or log monitor, which a run does not use.

    Ray starts a dashboard without pages even if none is asked for, and waits for it. Each of the three is a Python
    process that takes a second or more to start, and Ray waits for its end too.
    """
    node = importlib.import_module("ray._private.node").Node
    with contextlib.ExitStack() as replacements:
        for name in ("start_api_server", "start_monitor", "start_log_monitor"):
            replacements.enter_context(replaced(node, name, lambda *_, **__: None))
        yield


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep the run's handler of SIGTERM, which Ray replaces, and let the processes that Ray starts receive SIGTERM.

    Ray sets a handler in Python in the main thread, and one through the C library in any thread.
    """
    before = signal.getsignal(signal.SIGTERM)
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        with handler_kept(signal.SIGTERM):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
