"""Plain `pytest` runs every notebook as JupyterLab would and compares its outputs.

nbval collects and compares. Where it differs from JupyterLab it is cured here: `;` and `Out`, clear_output,
updates of a display, and what is printed into an Output widget. For each there is a test that fails without
the cure, and that says so once nbval needs it no longer. Loaded by `-p` in pyproject.toml.
"""

import tempfile
from pathlib import Path

import pytest
from nbval.plugin import IPyNbFile

from notebook_run import prepare_machine

SANITIZE = Path(__file__).with_name("sanitize.cfg")
OUTPUTS = {"stream", "display_data", "execute_result", "error", "clear_output", "update_display_data"}


def pytest_configure(config):
    config.option.nbval_sanitize_with = config.option.nbval_sanitize_with or str(SANITIZE)
    config.option.nbval_kernel_startup_timeout = 180  # seconds; four kernels may be starting on two cores


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(parent):
    nodes = yield
    return [
        CourseNotebook.from_parent(parent, path=node.path) if type(node) is IPyNbFile else node
        for node in nodes
    ]


def pytest_runtest_setup(item):
    if isinstance(item.parent, CourseNotebook):
        item.parent.begin(item)


class CourseNotebook(IPyNbFile):
    """A notebook with a progress file of its own, whose messages mean what they mean in JupyterLab."""

    def setup(self):
        prepare_machine()
        self.private = tempfile.TemporaryDirectory()
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("COURSE_PROGRESS", str(Path(self.private.name) / "progress.json"))
            environment.setenv("COURSE_STRICT", "1" if self.path.parent.name == "solutions" else "0")
            self.start_kernel()
        self.kernel.execute_cell_input = self.execute_cell_input

    def start_kernel(self, tries=3):
        # Two kernels that start at once can be given the same TCP port, and then one of them dies.
        try:
            super().setup()
        except RuntimeError:
            if tries == 1:
                raise
            self.start_kernel(tries - 1)

    def teardown(self):
        super().teardown()
        self.private.cleanup()

    def begin(self, cell):
        cell.output_timeout = 60  # seconds; nbval's 5 are too few on a busy machine
        self.cell = cell
        self.displays = []  # (display_id, the output that shows it); nbval compares at the end of a cell
        self.display_id = None  # of the output that nbval is about to store
        self.open_widgets = set()  # the comms of the Output widgets that catch what is printed
        self.clear_before_next = False

    def execute_cell_input(self, source, allow_stdin=None):
        # With nbval's store_history=False IPython ignores a closing ";" and keeps no Out.
        self.message_id = self.kernel.kc.execute(
            source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
        )
        return self.message_id

    def get_kernel_message(self, timeout=None, stream="iopub"):
        """The next message for nbval to act upon, after those that it cannot act upon."""
        while True:
            message = super().get_kernel_message(timeout=timeout, stream=stream)
            ours = message["parent_header"].get("msg_id") == self.message_id
            if not ours or not self.carried_out(message["msg_type"], message["content"]):
                return message

    def carried_out(self, kind, content):
        """True where a message needs nothing more than what was done here."""
        outputs = self.cell.test_outputs
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
