"""All use of Ray: connect, find the GPUs, start and kill the process of each GPU. Only Ray core's actors are used.

Ray restarts nothing by itself here (``max_restarts=0``, ``max_task_retries=0``; its documented default for some calls
is -1, without end): the run decides what is started again, and where.
"""

import contextlib
import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from protenix_multiseed.config import RunConfig
from protenix_multiseed.errors import ConfigError
from protenix_multiseed.execution.fleet import Place
from protenix_multiseed.execution.gpu_worker import GpuWorker
from protenix_multiseed.execution.gpus import check_ray, no_gpu, visible_gpus
from protenix_multiseed.process import handler_kept
from protenix_multiseed.upstream.environment import replaced

_STORE_BYTES = 80 * 2**20  # of shared memory for Ray's objects: messages are small, and /dev/shm may be
ray: Any = None  # the modules are imported with the first cluster
NodeAffinity: Any = None
_ANSWER_SECONDS = 20.0
_N_CALL = 8  # calls that a process answers at the same time
_ahead: list["Future[Cluster]"] = []  # the cluster that waits for its run, at most one


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
    global ray, NodeAffinity
    ray = importlib.import_module("ray")
    NodeAffinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy


class _RayWorker(GpuWorker):
    def __init__(self, config: RunConfig, folder: Path, workers: int) -> None:
        import ray

        gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        super().__init__(config, folder, gpus or None, workers)


def connect(config: RunConfig) -> "Cluster":
    """Return the cluster of a run: the one that :func:`connect_ahead` makes, if it was called for this run.

    Raises:
        ConfigError: if there is no cluster, or no GPU.
    """
    if not _ahead:
        return Cluster(config)
    cluster = _ahead.pop().result()
    if not cluster.settle(config):
        cluster.close()
        return Cluster(config)
    return cluster


def connect_ahead(config: RunConfig) -> None:
    """Begin to make the cluster of a run, and to start the process of each GPU, in a thread.

    The thread lives as long as the program, because the kernel ends Ray's processes with the thread that has started
    them. It ends the connection of a run that was refused.
    """
    made: Future[Cluster] = Future()

    def work() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # Ray's processes inherit SIGINT's
        try:
            import_ray(is_local=config.ray is None)
            if not threading.main_thread().is_alive():  # the run was refused meanwhile
                return
            cluster = Cluster(config)
            if threading.main_thread().is_alive():
                cluster.start_ahead()
            made.set_result(cluster)
        except BaseException as error:
            made.set_exception(error)
        threading.main_thread().join()
        with _signals_kept():
            ray.shutdown()

    _ahead.append(made)
    threading.Thread(target=work, name="ray").start()


class Cluster:
    """A connection to a Ray cluster, or a cluster of this machine alone that lives as long as the connection.

    Raises:
        ConfigError: if there is no cluster, or no GPU.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._kind = _kind(config)
        self._started: dict[Place, Any] = {}  # handles of processes that nobody has asked for
        _connect(config)
        try:
            if not self.places():
                raise no_gpu(config.ray, self._kind)
        except BaseException:
            self.close()
            raise

    def start_ahead(self) -> None:
        """Start the process of each GPU now, so that :meth:`start` finds it.

        Not with templates: the checks look for the program that aligns them, which changes the configuration.
        """
        if not self._config.template:
            self._started = {place: self.start(place) for place in self.places()}

    def settle(self, config: RunConfig) -> bool:
        """Take the configuration that the checks of the run have made. Return False if it needs another cluster."""
        mine = self._config
        if (mine.gpus, mine.ray, mine.device) != (config.gpus, config.ray, config.device):
            return False
        if config != mine:
            self._config = config
            for place, handle in self._started.items():
                self.kill(handle, place, None)
            self._started.clear()
        return True

    def close(self) -> None:
        """Disconnect. A cluster of this machine alone ends."""
        with _signals_kept():
            ray.shutdown()

    def places(self) -> list[Place]:
        """Return the GPUs of all nodes that are alive now, at most as many as the user asked for."""
        found = [
            Place(node["NodeID"], node["NodeManagerHostname"], slot)
            for node in ray.nodes()
            if node["Alive"]
            for slot in range(int(node["Resources"].get(self._kind, 0)))
        ]
        gpus = self._config.gpus
        return found[: int(gpus)] if gpus is not None and gpus.isdigit() else found

    def start(self, place: Place) -> Any:
        """Start the process of one GPU. Returns its handle at once; the first call waits until the process runs."""
        if place in self._started:
            return self._started.pop(place)
        node = next((one for one in ray.nodes() if one["NodeID"] == place.node), None)
        resources = node["Resources"] if node else {}
        share = int(resources.get("CPU", 1)) // max(1, int(resources.get(self._kind, 1)))
        workers = max(1, min(self._config.workers or 1, share))
        options = {"num_cpus": 1, "num_gpus": 0} if self._kind == "CPU" else {"num_cpus": 0, "num_gpus": 1}
        actor: Any = ray.remote(_RayWorker).options(
            **options,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=_N_CALL,
            scheduling_strategy=NodeAffinity(place.node, soft=False),
        )
        config = self._config
        if self._kind == "GPU":  # a GPU that PyTorch cannot use is refused, and not replaced by the CPU
            config = config.model_copy(update={"device": "cuda"})
        return actor.remote(config, Path.cwd(), workers)

    def call(self, handle: Any, method: str, *arguments: Any) -> "Future[Any]":
        """Call a method of a GPU's process."""
        made: Future[Any] = getattr(handle, method).remote(*arguments).future()
        return made

    def kill(self, handle: Any, place: Place, process: int | None) -> None:
        """Kill the process of a GPU, also if it does not answer."""
        with contextlib.suppress(Exception):  # it may be dead already
            ray.kill(handle, no_restart=True)
        if process is not None:
            with contextlib.suppress(Exception):
                strategy = NodeAffinity(place.node, soft=False)
                ray.remote(_kill).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(process)


def _kind(config: RunConfig) -> str:
    """Ray's name for what each process of a GPU gets; a run on CPUs has a process for each."""
    return "CPU" if config.device == "cpu" else "GPU"


def _connect(config: RunConfig) -> None:
    """Connect to the cluster of the configuration, or start one of this machine alone."""
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


def _start_local(config: RunConfig, quiet: dict[str, Any]) -> None:
    here, visible = visible_gpus(), contextlib.ExitStack()
    count = int(config.gpus) if config.gpus is not None and config.gpus.isdigit() else 0
    n_cpu = os.cpu_count() or 1
    if _kind(config) == "CPU":
        n_cpu, n_gpu = count or n_cpu, 0
    else:
        if "," in (config.gpus or ""):
            here = _chosen(config, here)
            visible.enter_context(_visible(here))
        elif count > len(here):
            raise ConfigError(f"gpus: {count} asked for, and this machine has {len(here)}")
        n_gpu = count or len(here)
    with visible, _without_helpers():
        ray.init(
            address="local",
            num_cpus=n_cpu,
            num_gpus=n_gpu,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )


def _chosen(config: RunConfig, here: list[str]) -> list[str]:
    wanted = [int(part) for part in (config.gpus or "").split(",") if part]
    if missing := [index for index in wanted if index >= len(here)]:
        raise ConfigError(f"gpus: there is no GPU {missing[0]}; this machine has {len(here)}")
    return [here[index] for index in dict.fromkeys(wanted)]


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


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


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
