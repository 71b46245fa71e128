"""A real JupyterLab and a real Chromium, for the browser tests and for measuring."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
NOTEBOOK = "window.jupyterapp?.shell.currentWidget"


def chromium_path(playwright):
    """Path str of a Chromium: one on PATH, or the one that `playwright install` fetched; None without one."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), playwright.chromium.executable_path)
    return found if os.path.exists(found) else None


@contextlib.contextmanager
def jupyter_lab(folder, **environment):
    """A JupyterLab on a free port, with settings of its own in `folder`/.jupyter; yields its address.

    folder:      Path, the root of its file browser
    environment: environment variables of the server and its kernels
    """
    own = folder / ".jupyter"
    settings = own / "config" / "labconfig"
    settings.mkdir(parents=True)
    # The news are asked for on another machine.
    disabled = {"@jupyterlab/apputils-extension:announcements": True}
    (settings / "page_config.json").write_text(json.dumps({"disabledExtensions": disabled}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (own / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
                *(f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"),
                *("--IdentityProvider.token=", "--ServerApp.password="),
                *("--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"),
            ],
            env={
                **os.environ,
                **{f"JUPYTER_{name.upper()}_DIR": str(own / name) for name in ("config", "data", "runtime")},
                "IPYTHONDIR": str(own / "ipython"),
                **environment,
            },
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(server, address, own / "log")
        yield address
    finally:
        server.terminate()
        server.wait()


def _wait_for(server, address, log):
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}/api", timeout=5)
            return
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{Path(log).read_text()[-3000:]}")


def open_notebook(page, address, name):
    """Open a notebook of the server's folder in a tab of its own and wait until its kernel is idle."""
    page.goto(f"{address}/doc/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function(
        f"() => {NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'", timeout=600_000
    )


def command(page, name, **arguments):
    """Execute one of JupyterLab's commands."""
    page.evaluate("([name, given]) => window.jupyterapp.commands.execute(name, given)", [name, arguments])


def close_kernels(page):
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
