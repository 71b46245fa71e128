"""The course's command line: python -m course_utils prepare | doctor | progress"""

import argparse
import io
import os
import sys

from .errors import CourseError
from .models.bundled import assets


def main(arguments=None):
    """Run one command; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A path may hold what a console or a file cannot, such as the user's name on Windows.
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(
        prog="python -m course_utils", description=(__doc__ or "").partition(":")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="download and convert the model before the first load()")
    prepare.add_argument(
        "--shared", action="store_true", help=f"for every user of this Python, in {assets.shared_folder()}"
    )
    commands.add_parser("doctor", help="say what this machine has and lacks for the course")
    commands.add_parser("progress", help="show which exercises and quizzes are done")
    chosen = parser.parse_args(arguments)
    try:
        return {"prepare": _prepare, "doctor": _doctor, "progress": _progress}[chosen.command](chosen)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. Nothing half-made is left; run it again at any time.", file=sys.stderr)
        return 130


def _prepare(chosen):
    if chosen.shared:
        os.environ["COURSE_CACHE"] = str(assets.shared_folder())
    for asset in assets.ASSETS:
        folder = assets.find(asset) or assets.prepare(asset)
        print(f"{asset.title} is ready: {folder}")
    return 0


def _doctor(chosen):
    from . import doctor

    findings = doctor.examine()
    print(doctor.report(findings))
    return int(any(finding.is_missing for finding in findings))


def _progress(chosen):
    from .checks import progress

    print(progress.report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
