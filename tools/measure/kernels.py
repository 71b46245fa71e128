"""Real Jupyter kernels, several at once, for the tools that measure."""

import contextlib
import os
import subprocess
import sys

from jupyter_client import KernelManager


class Kernel:
    """A running ipykernel of this Python."""

    def __init__(self, **environment):
        self._manager = KernelManager(kernel_name="python3")
        self._manager.kernel_spec.argv[0] = sys.executable
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._manager.start_kernel(env={**os.environ, **environment}, **quiet)
        self._client = self._manager.client()
        self._client.start_channels()
        self._waits_for = None

    @property
    def pid(self):
        return self._manager.provisioner.pid

    def wait_until_ready(self):
        self._client.wait_for_ready(timeout=300)

    def send(self, code):
        """Start running `code`; `result()` waits for it."""
        self._waits_for = self._client.execute(code, user_expressions={"result": "result"})

    def result(self):
        """What the sent code left in its variable `result`, which has to be a number."""
        while True:
            reply = self._client.get_shell_msg(timeout=600)
            if reply["parent_header"].get("msg_id") == self._waits_for:
                break
        if reply["content"]["status"] != "ok":
            raise RuntimeError("\n".join(reply["content"]["traceback"]))
        return float(reply["content"]["user_expressions"]["result"]["data"]["text/plain"])

    def close(self):
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@contextlib.contextmanager
def kernels(count, **environment):
    """`count` kernels, started at the same moment, with these environment variables."""
    started = []
    try:
        for _ in range(count):
            started.append(Kernel(**environment))  # noqa: PERF401 (those that were started are ended)
        for kernel in started:
            kernel.wait_until_ready()
        yield started
    finally:
        for kernel in started:
            kernel.close()


def run_in_all(group, code):
    """Run `code` in every kernel at the same moment; the list of their results."""
    for kernel in group:
        kernel.send(code)
    return [kernel.result() for kernel in group]
