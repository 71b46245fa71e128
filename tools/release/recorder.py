"""A pytest plugin that writes down, a line of JSON each, what every test and cell did.

    pytest -p release.recorder            with RELEASE_RECORDS: a folder, a file for each process in it

A cell is recorded with its stored and its new outputs where they differ or where it gave a message.
"""

import json
import logging
import os
import re
import traceback
from pathlib import Path

import pytest

COLOURS = re.compile(r"\x1b\[[\d;]*m")


class Recorder:
    def __init__(self, config):
        folder = Path(os.environ["RELEASE_RECORDS"])
        self.file = (folder / f"{os.getpid()}.jsonl").open("a", encoding="utf-8")
        # The process that hands out the tests hears of their warnings a second time.
        self.hands_out = not hasattr(config, "workerinput") and bool(config.getoption("numprocesses", None))
        self.root = config.rootpath
        self.test = ""
        self.executed = {}  # notebook -> cells that were run, which is the number in "Cell In[…]"
        handler = logging.Handler(logging.WARNING)
        handler.emit = self.logged
        logging.getLogger("transformers").addHandler(handler)

    def write(self, kind, **values):
        self.file.write(json.dumps({"kind": kind, **values}) + "\n")
        self.file.flush()

    def logged(self, record):
        self.write("message", category="log", text=record.getMessage(), test=self.test)

    def pytest_collection_finish(self, session):
        if session.items:
            self.write("collected", total=len(session.items))

    def pytest_warning_recorded(self, warning_message, nodeid):
        if not self.hands_out:
            category, text = warning_message.category.__name__, str(warning_message.message)
            self.write("message", category=category, text=text, test=nodeid or self.test)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector):
        report = yield
        call = getattr(report, "call", None)
        if report.failed and call and call.excinfo:
            error = call.excinfo.value.__cause__ or call.excinfo.value
            self.write("failed", test=report.nodeid, **self.described(error))
        return report

    def pytest_runtest_logstart(self, nodeid):
        self.test = nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        error = call.excinfo.value if report.failed else None
        if hasattr(item, "cell"):
            if call.when == "call":
                self.cell(item, error, report)
            elif error:
                self.write("failed", test=item.nodeid, **self.described(error))
        elif error:
            self.write("failed", test=item.nodeid, **self.described(error))
        if call.when == "call" or (call.when == "setup" and not report.passed):
            self.write("ended", test=item.nodeid, outcome=report.outcome)
        return report

    def pytest_runtest_logreport(self, report):
        if report.when not in ("setup", "call", "teardown"):  # a worker died
            text = str(report.longrepr).strip().splitlines()
            self.write(
                "failed", test=report.nodeid, type="Crash", message=text[-1] if text else "", frames=[]
            )

    def described(self, error):
        """Type, message and frames of an exception: [file below the root or "", line, function, code]."""
        frames = []
        for entry in traceback.extract_tb(error.__traceback__):
            path = Path(entry.filename)
            own = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else ""
            frames.append([own, entry.lineno, entry.name, entry.line or ""])
        return {"type": type(error).__name__, "message": str(error)[:2000], "frames": frames}

    def cell(self, item, error, report):
        name = item.path.relative_to(self.root).as_posix()
        if report.skipped:
            return
        self.executed[name] = self.executed.get(name, 0) + 1
        executed = self.executed[name]
        self.write("ran", notebook=name, executed=executed, source=item.cell.source)
        new, stored = item.test_outputs or [], item.cell.outputs
        if not error and not any(output.get("name") == "stderr" for output in new):
            return
        self.write(
            "cell",
            test=item.nodeid,
            notebook=name,
            number=item.cell_num,
            executed=executed,
            source=item.cell.source,
            failed=bool(error),
            reason=COLOURS.sub("", str(error)).strip().splitlines()[0] if error else "",
            stored=[readable(output, item.sanitize) for output in stored],
            new=[readable(output, item.sanitize) for output in new],
        )


def readable(output, sanitize):
    """An output as {"stream" or kind of data: text}, as the comparison sees it."""
    if output.output_type == "stream":
        return {output.name: sanitize(output.text)}
    if output.output_type == "error":
        traceback = COLOURS.sub("", "\n".join(output.traceback))
        return {"error": output.ename, "message": output.evalue, "traceback": traceback}
    return {
        kind: sanitize(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/")
    }


def pytest_configure(config):
    config.pluginmanager.register(Recorder(config), "release-recorder")
