"""Try the course on another release of transformers, and say what moved.

    python tools/try_release.py 5.25.0           a version
    python tools/try_release.py newest           the newest release of the package index
    python tools/try_release.py dist/x.whl       a wheel
    python tools/try_release.py 5.25.0 --quick   without the tests and the notebooks

In a temporary folder it makes an environment with that release, the other pins of requirements.txt and a
copy of this checkout. Nothing here changes. What is cheap and certain comes first, and each stage's result is
printed as it is done, in Markdown: packages, names, deprecations, anchors and line numbers, the version map,
the messages of appendix B, numbers, the tests, every cell of every notebook. Exits with 0 if nothing needs a
maintainer, 1 if something moved, and 2 if it could not run.
"""

import argparse
import errno
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from release import CannotRun, DoesNotRun, compared, names, packages, suite, workplace
from release.report import Section, code, ending, heading
from release.uses import Uses

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that it cleans up, too
    try:
        sections = attempt(options, root)
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The temporary folder is gone.", file=sys.stderr)
        return 130
    except OSError as error:
        print(sentence_on(error), file=sys.stderr)
        return 2
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    return 1 if any(section.moved for section in sections) else 0


def sentence_on(error: OSError) -> str:
    if error.errno != errno.ENOSPC:
        return f"It cannot go on: {error}."
    return (
        f"There is no space left in {tempfile.gettempdir()}: an environment takes about 2 GB. "
        "Make room, or let TMPDIR name a folder on another disk."
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s VERSION [options] [-- PYTEST ARGUMENTS]",
    )
    own, after = arguments, []
    if "--" in arguments:
        place = arguments.index("--")
        own, after = arguments[:place], arguments[place + 1 :]
    parser.add_argument("release", metavar="VERSION", help="a version, newest, or the path of a wheel")
    parser.add_argument("--quick", action="store_true", help="only the stages of under a minute or so each")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--python", default=sys.executable, help="the Python to try it with (this one)")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder")
    parser.add_argument("--environment", type=Path, metavar="DIR", help="an environment that --keep left")
    options = parser.parse_args(own)
    options.pytest = after
    return options


def attempt(options, root: Path) -> list[Section]:
    """Try the release; the sections of the report. Raises CannotRun, and OSError on a full disk."""
    if options.report and not options.report.resolve().parent.is_dir():
        raise CannotRun(f"There is no folder {options.report.resolve().parent} for the report.")
    if options.report and options.report.is_dir():
        raise CannotRun(f"{options.report} is a folder. Give --report the name of a file.")
    pins = workplace.pins((root / "requirements.txt").read_text(encoding="utf-8"))
    if "transformers" not in pins:
        raise CannotRun("requirements.txt has no line transformers==VERSION to compare with.")
    with workplace.temporary_folder(options.keep) as folder:
        environment = (options.environment or folder / "venv").resolve()
        place = workplace.Workplace(
            folder, workplace.interpreter_in(environment), pinned=pins["transformers"]
        )
        if options.environment and not place.python.exists():
            raise CannotRun(
                f"{options.environment} is not an environment of --keep: it has no {place.python.name}."
            )
        report = Report(options.report)
        if not options.environment:
            workplace.make_environment(place, options.python)
        place.version = workplace.fetch(place, options.release, place.new, "fetching the release")
        workplace.fetch(place, place.pinned, place.old, "fetching the pinned release")
        workplace.copy_checkout(root, place)
        report.write(heading(place))
        complete = False
        try:
            for title, stage in stages(place, options, pins):
                report.add(title, stage)
            complete = True
        finally:  # without the rest, the cheap stages have found something
            report.end(complete)
        if options.keep:
            print(f"It stays in {folder}; use it again with --environment {folder}", file=sys.stderr)
        return report.sections


def stages(place, options, pins):
    """(title, function without arguments that returns a Section) of each stage, the cheap ones first."""
    found = {}

    def of_names():
        section, found["changes"] = names.stage(place, uses)
        return section

    def of_deprecations():
        section, found["arguments"] = names.deprecations(place, uses)
        return section

    yield "Packages", lambda: packages.stage(place)
    uses = Uses(place.checkout)
    yield "Names", of_names
    yield "Deprecations", of_deprecations
    yield "Environment", lambda: prepare(place, options, pins)
    yield "Anchors and line numbers", lambda: compared.anchors(place, uses)
    yield "Version map", lambda: compared.version_map(place)
    yield "Messages", lambda: compared.messages(place)
    yield "Numbers", lambda: compared.numbers(place)
    if options.quick:
        return
    renames = names.renamed(found["changes"], found["arguments"])
    if (arguments := suite.arguments_for("tests", options.pytest)) is not None:
        yield "Tests", lambda: suite.tests(place, arguments)
    if (cells := suite.arguments_for("notebooks", options.pytest)) is not None:
        yield "Cells", lambda: suite.notebooks(place, cells, renames)


def prepare(place, options, pins) -> Section:
    """Install what the course needs; which packages are not at their pin."""
    if options.environment:
        text = (place.checkout / "requirements.txt").read_text(encoding="utf-8")
        workplace.pin_as_installed(place, text)
    else:
        workplace.install(place)
    versions = workplace.installed(place)
    if versions.get("transformers") != place.version:
        raise CannotRun(
            f"The environment has transformers {versions.get('transformers', '(none)')}, not "
            f"{place.version}. Leave out --environment to make one."
        )
    other = [
        f"{code(name)} {version} (pinned: {pins[name]})"
        for name, version in versions.items()
        if name in pins and name != "transformers" and version.partition("+")[0] != pins[name]
    ]
    said = f"Not at their pin: {', '.join(other)}." if other else "The other packages are at their pins."
    return Section("Environment", said, moved=bool(other))


class Report:
    """Sections, printed as they come and written to a file at the end."""

    def __init__(self, file: Path | None):
        self.file = file
        self.parts: list[str] = []
        self.sections: list[Section] = []

    def write(self, text: str) -> None:
        self.parts.append(text)
        print(text, flush=True)

    def add(self, title: str, stage) -> None:
        start = time.monotonic()
        try:
            section = stage()
        except DoesNotRun as error:
            section = Section(title, str(error), moved=True)
        section.seconds = time.monotonic() - start
        self.sections.append(section)
        self.write(str(section))

    def end(self, complete: bool) -> None:
        """What needs a maintainer, last on the screen and first in the file."""
        text = ending(self.sections, complete)
        print(text, flush=True)
        if self.file:
            first, *rest = self.parts
            temporary = self.file.with_name(f".{self.file.name}.{os.getpid()}")
            temporary.write_text("\n".join([first, text, *rest]), encoding="utf-8")
            os.replace(temporary, self.file)


if __name__ == "__main__":
    sys.exit(main())
