"""Run a notebook as a learner would, and leave in it only what may be stored.

Stored outputs have to be the same on every machine and readable without a kernel. So a widget is frozen to
its still table, and whatever would differ elsewhere (a path, stderr, a warning) stops the build.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from course_utils.widgets.core.saved_page import drop_known_modules
from lesson_source import has_tag

ROOT = Path(__file__).resolve().parents[1]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SECONDS_A_CELL = 900
# What a maintainer's own shell or profile could change in an output.
PRIVATE = ("COURSE_", "PYTHON", "IPYTHON", "JUPYTER", "MPLBACKEND", "HF_", "TRANSFORMERS_", "TQDM_")
# The places where people keep their files, on any machine: home, temporary and CI folders.
ANY_PATH = re.compile(r"(?<![\w./-])(/(home|root|Users|tmp|private|var|work|builds)/|[A-Za-z]:\\|~/)[\w.]")
# A terminal's colours; a module script.
NO_TEXT = re.compile(r"\x1b\[[\d;]*m|<script type=\"module\"[^>]*>.*?</script>", re.DOTALL)
# Python hides most warnings of this kind when a library's module raises them.
DEPRECATIONS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
SHOW_DEPRECATIONS = {"PYTHONWARNINGS": ",".join(f"always::{name}" for name in DEPRECATIONS)}
DEPRECATED = re.compile(rf"^.*(?:\b(?:{'|'.join(DEPRECATIONS)}): |(?i:\bdeprecated\b)).*$", re.MULTILINE)
WARNING = re.compile(r"\b\w*Warning: |^WARNING\b", re.MULTILINE)


class RunError(Exception):
    """A notebook did not run, or holds an output that must not be stored; the message says which cell."""


def prepare_machine() -> None:
    """Do now, once, what would else report its progress in the output of the first notebook that needs it."""
    import matplotlib.font_manager  # noqa: F401 -- importing it finds the fonts

    from course_utils.models.bundled import assets

    for asset in assets.ASSETS:
        if not assets.find(asset):
            assets.prepare(asset)


def run_notebook(notebook: NotebookNode, folder: Path, *, strict: bool = False, on_cell=None) -> None:
    """Execute every cell in place, in a fresh kernel of this environment, and freeze the outputs.

    folder: the kernel's working directory. strict: exercise checks raise unless the answer is right.
    on_cell: called without arguments after each code cell. Raises RunError.
    """
    with tempfile.TemporaryDirectory() as private:
        execute(notebook, folder, clean_environment(Path(private), strict=strict), on_cell=on_cell)
    metadata = notebook.metadata
    metadata.pop("widgets", None)
    metadata["language_info"] = {"name": metadata["language_info"]["name"]}
    modules: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                _freeze(output, modules)
            if problem := output_problem(cell):
                raise RunError(f"{problem}, in the cell\n\n{cell.source}")


def execute(
    notebook: NotebookNode, folder: Path, environment: dict, *, on_cell=None, allow_errors=False
) -> None:
    """Run the cells in a kernel of this Python, whatever kernels the user has registered."""
    with tempfile.TemporaryDirectory() as private:
        kernels = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True),
            connection_file=str(Path(private) / "kernel.json"),
            # Two kernels that start at once can be given the same TCP port, and then one of them dies.
            transport="ipc" if os.name == "posix" else "tcp",
        )
        client = NotebookClient(
            notebook,
            km=kernels,
            timeout=SECONDS_A_CELL,
            startup_timeout=SECONDS_A_CELL,
            record_timing=False,  # timestamps would change every file at every build
            allow_errors=allow_errors,
            resources={"metadata": {"path": str(folder)}},
            on_cell_executed=lambda **_: on_cell() if on_cell else None,
        )
        try:
            client.execute(env=environment, stderr=subprocess.DEVNULL, cleanup_kc=True)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise RunError(str(error)) from None


def clean_environment(private: Path, *, strict: bool) -> dict[str, str]:
    """The environment of a kernel whose outputs are stored: the CPU, no progress, no profile of the user,
    every deprecation said, and one thread, since the last bits that a widget's page carries depend on how
    many there are."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "COURSE_CACHE" or not (name.startswith(PRIVATE) or name.endswith("COLOR"))
    }
    return {
        **kept,
        **SHOW_DEPRECATIONS,
        "COURSE_DEVICE": "cpu",
        "COURSE_PROGRESS": str(private / "progress.json"),
        "COURSE_STRICT": "1" if strict else "0",
        "IPYTHONDIR": str(private / "ipython"),
        "MKL_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
    }


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs with neighbouring pieces of one stream made one: the kernel's buffer cuts them by time."""
    joined = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _freeze(output: NotebookNode, modules: set[str]) -> None:
    """Take out what only a live kernel can show, the folders of this machine in a traceback, and the widget
    modules (10 KB each) that an earlier output of the notebook holds: their names are in `modules`."""
    if "text/html" in output.get("data", {}):
        output.data.pop(WIDGET_VIEW, None)
        output.data["text/html"] = drop_known_modules(output.data["text/html"], modules)
    if output.output_type == "error":
        output.traceback = [_without_folders(line) for line in output.traceback]


def _without_folders(text: str) -> str:
    """`transformers/generation/utils.py` for a file of a package, wherever the package is installed."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sysconfig.get_path("stdlib")]
    folders += [str(ROOT), sys.prefix]
    home = str(Path.home())
    for folder in folders:
        for spelled in (folder, "~" + folder.removeprefix(home) if folder.startswith(home) else folder):
            text = text.replace(spelled + os.sep, "")
    return text


def output_problem(cell: NotebookNode) -> str:
    """What in a code cell's stored outputs must not be stored; "" if nothing."""
    errors = [output.ename for output in cell.outputs if output.output_type == "error"]
    if has_tag(cell, "raises-exception") != bool(errors):
        return (
            f"an undeclared {errors[0]}"
            if errors
            else "no error, though the tag raises-exception declares one"
        )
    for output in cell.outputs:
        if output.get("name") == "stderr":
            said = DEPRECATED.search(output.text)
            return f"text on stderr ({(said[0] if said else output.text).strip()[:400]!r})"
        if WIDGET_VIEW in output.get("data", {}):
            return "a widget without text/html, of which a reader without a kernel sees an error"
        for text in output_texts(output):
            if found := path_in(text):
                return f"a path of this machine ({found!r})"
            if output.output_type != "error" and (warning := WARNING.search(text)):
                return f"a warning ({text[warning.start() :][:200]!r})"
    return ""


def output_texts(output: NotebookNode) -> list[str]:
    """Every text of an output, without pictures, colours and the code of a widget's page."""
    data = output.get("data", {})
    texts = [str(value) for kind, value in data.items() if not kind.startswith("image/")]
    texts += [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
    return [NO_TEXT.sub("", text) for text in texts]


def path_in(text: str) -> str:
    """The first path of this machine, or of a machine like it, in a text; "" if there is none."""
    here = [str(ROOT), str(Path.home()), tempfile.gettempdir(), sys.prefix]
    for folder in here:
        if len(folder) > 1 and folder + os.sep in text:
            return folder
    found = ANY_PATH.search(text)
    return text[found.start() :][:80] if found else ""
