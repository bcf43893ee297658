"""The GPUs of a Ray cluster: find them, start and kill the process of each. Only Ray core's actors are used.

Ray restarts nothing by itself here (``max_restarts=0``, ``max_task_retries=0``; its documented default for some calls
is -1, without end): the run decides what is started again, and where.
"""

import contextlib
import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from protenix_multiseed.config import RunConfig
from protenix_multiseed.execution import ray_connection
from protenix_multiseed.execution.fleet import Place
from protenix_multiseed.execution.gpu_worker import GpuWorker
from protenix_multiseed.execution.gpus import no_gpu
from protenix_multiseed.execution.ray_connection import kind_of

ROOT = "PROTENIX_ROOT_DIR"
_N_CALL = 8  # calls that a process answers at the same time
_ahead: list["Future[Cluster]"] = []  # the cluster that waits for its run, at most one


class _RayWorker(GpuWorker):
    def __init__(self, config: RunConfig, folder: Path, workers: int, root: str | None) -> None:
        import ray

        # The node has the environment of whoever started Ray there, which may name other data.
        os.environ.pop(ROOT, None)
        if root is not None:
            os.environ[ROOT] = root
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
            ray_connection.import_ray(is_local=config.ray is None)
            if not threading.main_thread().is_alive():  # the run was refused meanwhile
                return
            cluster = Cluster(config)
            if threading.main_thread().is_alive():
                cluster.start_ahead()
            made.set_result(cluster)
        except BaseException as error:
            ray_connection.disconnect()
            made.set_exception(error)
            return
        threading.main_thread().join()
        ray_connection.disconnect()

    _ahead.append(made)
    threading.Thread(target=work, name="ray").start()


class Cluster:
    """A connection to a Ray cluster, or a cluster of this machine alone that lives as long as the connection.

    Raises:
        ConfigError: if there is no cluster, or no GPU.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._kind = kind_of(config)
        self._started: dict[Place, Any] = {}  # handles of processes that nobody has asked for
        ray_connection.connect(config)
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
        ray_connection.disconnect()

    def places(self) -> list[Place]:
        """Return the GPUs of all nodes that are alive now, at most as many as the user asked for."""
        found = [
            Place(node["NodeID"], node["NodeManagerHostname"], slot)
            for node in ray_connection.ray.nodes()
            if node["Alive"]
            for slot in range(int(node["Resources"].get(self._kind, 0)))
        ]
        gpus = self._config.gpus
        return found[: int(gpus)] if gpus is not None and gpus.isdigit() else found

    def start(self, place: Place) -> Any:
        """Start the process of one GPU. Returns its handle at once; the first call waits until the process runs."""
        if place in self._started:
            return self._started.pop(place)
        node = next((one for one in ray_connection.ray.nodes() if one["NodeID"] == place.node), None)
        resources = node["Resources"] if node else {}
        share = int(resources.get("CPU", 1)) // max(1, int(resources.get(self._kind, 1)))
        workers = max(1, min(self._config.workers or 1, share))
        options = {"num_cpus": 1, "num_gpus": 0} if self._kind == "CPU" else {"num_cpus": 0, "num_gpus": 1}
        actor: Any = ray_connection.ray.remote(_RayWorker).options(
            **options,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=_N_CALL,
            scheduling_strategy=_on(place),
        )
        config = self._config
        update: dict[str, Any] = {"checkpoint": config.checkpoint_path and config.checkpoint_path.absolute()}
        if self._kind == "GPU":  # a GPU that PyTorch cannot use is refused, and not replaced by the CPU
            update["device"] = "cuda"
        return actor.remote(config.model_copy(update=update), Path.cwd(), workers, os.environ.get(ROOT))

    def call(self, handle: Any, method: str, *arguments: Any) -> "Future[Any]":
        """Call a method of a GPU's process."""
        made: Future[Any] = getattr(handle, method).remote(*arguments).future()
        return made

    def kill(self, handle: Any, place: Place, process: int | None) -> None:
        """Kill the process of a GPU, also if it does not answer."""
        with contextlib.suppress(Exception):  # it may be dead already
            ray_connection.ray.kill(handle, no_restart=True)
        if process is not None:
            with contextlib.suppress(Exception):
                ray_connection.ray.remote(_kill).options(
                    num_cpus=0, max_retries=0, scheduling_strategy=_on(place)
                ).remote(process)


def _on(place: Place) -> Any:
    return ray_connection.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(place.node, soft=False)


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
