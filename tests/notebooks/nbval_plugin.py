"""Plain `pytest` runs every notebook as JupyterLab would and compares its outputs.

nbval collects and compares. Where it differs from JupyterLab it is cured here: `;` and `Out`, clear_output,
updates of a display, and what is printed into an Output widget. For each there is a test that fails without
the cure, and that says so once nbval needs it no longer. Besides, a cell fails where something deprecated was
used, and at once where the kernel died. Loaded by `-p` in pyproject.toml.
"""

import tempfile
import time
from pathlib import Path
from queue import Empty

import pytest
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, RunningKernel
from nbval.plugin import IPyNbFile, NbCellError

from notebook_run import DEPRECATED, SHOW_DEPRECATIONS, prepare_machine

SANITIZE = Path(__file__).with_name("sanitize.cfg")
OUTPUTS = {"stream", "display_data", "execute_result", "error", "clear_output", "update_display_data"}
# Seconds after which what must come from a kernel has failed to. What comes is never late: machines are busy.
PATIENCE = 900
DIED = "The kernel died in this cell, as it does when memory runs out or compiled code crashes."
DEAD = "The kernel died in an earlier cell of this notebook, so this cell was not run."


def pytest_configure(config):
    config.option.nbval_sanitize_with = config.option.nbval_sanitize_with or str(SANITIZE)
    config.option.nbval_kernel_startup_timeout = PATIENCE


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(parent):
    nodes = yield
    return [
        CourseNotebook.from_parent(parent, path=node.path) if type(node) is IPyNbFile else node
        for node in nodes
    ]


@pytest.hookimpl(trylast=True)  # when pytest has set the notebook up, and its kernel runs
def pytest_runtest_setup(item):
    if isinstance(item.parent, CourseNotebook):
        item.parent.begin(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    said = item.parent.deprecated if isinstance(item.parent, CourseNotebook) else []
    try:
        result = yield
    except NbCellError as error:
        error.args = ("\n".join([*said, *error.args]),)
        raise
    if said:
        item.raise_cell_error("\n".join(said))
    return result


class CourseKernel(RunningKernel):
    """A kernel that is waited for as long as it lives. `cell` is the one that it runs; at first None."""

    cell = None

    def get_message(self, stream, timeout=None):
        """The next message. Raises queue.Empty after `timeout` seconds, NbCellError as soon as the kernel is
        seen to have died in its cell, RuntimeError where it has none yet."""
        deadline = time.monotonic() + (PATIENCE if timeout is None else timeout)
        while True:
            left = deadline - time.monotonic()
            try:
                return super().get_message(stream, timeout=max(0, min(1, left)))
            except Empty:
                if not self.is_alive():
                    raise self._death() from None
                if left < 0:
                    raise

    def _death(self):
        if self.cell is None:
            return RuntimeError("Kernel died while it started")
        return NbCellError(self.cell.cell_num, DIED, self.cell.cell.source)

    def _ensure_iopub_up(self):
        # As nbval does it, which gives up after ten seconds.
        for _ in range(PATIENCE):
            asked = self.kc.kernel_info()
            self.await_reply(asked, timeout=PATIENCE)
            try:
                return self.await_idle(asked, timeout=1)
            except Empty:  # it was said before anybody listened: ask again
                continue
        raise RuntimeError("Kernel was not heard")

    def execute_cell_input(self, source, allow_stdin=None):
        # With nbval's store_history=False IPython ignores a closing ";" and keeps no Out.
        self.message_id = self.kc.execute(
            source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
        )
        return self.message_id


class CourseNotebook(IPyNbFile):
    """A notebook with a progress file of its own, whose messages mean what they mean in JupyterLab."""

    def setup(self):
        prepare_machine()
        self.private = tempfile.TemporaryDirectory()
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("COURSE_PROGRESS", str(Path(self.private.name) / "progress.json"))
            environment.setenv("COURSE_STRICT", "1" if self.path.parent.name == "solutions" else "0")
            environment.delenv("TRANSFORMERS_VERBOSITY", raising=False)
            for name, value in SHOW_DEPRECATIONS.items():
                environment.setenv(name, value)
            self.kernel = self.start_kernel()
        self.setup_sanitize_files()

    def start_kernel(self, tries=3):
        # Two kernels that start at once can be given the same TCP port, and then one of them dies.
        try:
            return CourseKernel(CURRENT_ENV_KERNEL_NAME, cwd=str(self.path.parent), startup_timeout=PATIENCE)
        except RuntimeError:
            if tries == 1:
                raise
            return self.start_kernel(tries - 1)

    def teardown(self):
        super().teardown()
        self.private.cleanup()

    def begin(self, cell):
        if not self.kernel.is_alive():
            pytest.fail(DEAD, pytrace=False)
        cell.output_timeout = PATIENCE
        self.cell = self.kernel.cell = cell
        self.displays = []  # (display_id, the output that shows it); nbval compares at the end of a cell
        self.display_id = None  # of the output that nbval is about to store
        self.open_widgets = set()  # the comms of the Output widgets that catch what is printed
        self.clear_before_next = False
        self.deprecated = []  # what was said about it

    def get_kernel_message(self, timeout=None, stream="iopub"):
        """The next message for nbval to act upon, after those that it cannot act upon."""
        while True:
            message = super().get_kernel_message(timeout=timeout, stream=stream)
            ours = message["parent_header"].get("msg_id") == self.kernel.message_id
            if not ours or not self.carried_out(message["msg_type"], message["content"]):
                return message

    def carried_out(self, kind, content):
        """True where a message needs nothing more than what was done here."""
        outputs = self.cell.test_outputs
        if kind == "stream" and content["name"] == "stderr":
            self.deprecated += DEPRECATED.findall(content["text"])
        if self.display_id:
            self.displays.append((self.display_id, outputs[-1]))
        display_id = content.get("transient", {}).get("display_id")
        self.display_id = None
        if kind in ("comm_open", "comm_msg") and "msg_id" in (state := content["data"].get("state", {})):
            (self.open_widgets.add if state["msg_id"] else self.open_widgets.discard)(content["comm_id"])
        elif self.open_widgets and kind in OUTPUTS:
            return kind != "error"  # shown by the widget; an error must not hide there
        elif kind == "clear_output":
            self.clear_before_next = content["wait"]
            if not content["wait"]:
                outputs.clear()
            return True
        elif kind == "update_display_data":
            for output in (output for known_id, output in self.displays if known_id == display_id):
                output.update(data=content["data"], metadata=content["metadata"])
            return True
        elif kind in OUTPUTS:
            if self.clear_before_next:
                outputs.clear()
                self.clear_before_next = False
            self.display_id = display_id
        return False
