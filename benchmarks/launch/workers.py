"""Worker processes that leave it to the training process when to end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable


class WorkerInit:
    """A loader's ``worker_init_fn``, with workers that heed no SIGTERM but the training's.

    Slurm signals every process of a job: the training process, which is told to end, still
    needs its next batches to get as far as a checkpoint. Its own SIGTERM ends a worker, as
    torch and multiprocessing expect.

    Args:
        inner: What else is to be done in each worker.
    """

    def __init__(self, inner: Callable[[int], None] | None) -> None:
        self._inner = inner

    def __call__(self, worker_id: int) -> None:
        """Set a worker up."""
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        # a handler is not told who sent a signal; who waits for it is
        waits = threading.Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True)
        waits.start()
        if self._inner is not None:
            self._inner(worker_id)


def _end_when_told_by(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
