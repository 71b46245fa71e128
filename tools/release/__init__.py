"""What a release of transformers changes in the course: the stages of `tools/try_release.py`.

workplace    the temporary folder: both releases, the environment, a copy of the checkout
processes    programs that are run, with their progress shown and nothing left running
packages     stage: what the two releases require
catalog      what is written in a release: names, parameters, decorators, messages
uses         where the course uses a name
names        stages: names that are gone or new, arguments that are deprecated
probe        runs inside the environment, once under each release
compared     stages: anchors and line numbers, the version map, messages, numbers
recorder     a pytest plugin that writes down what each test and cell did
suite        runs the tests and the notebooks, and again under the pinned release what failed
causes       failures by cause
cells        stored outputs that changed, sorted
report       Markdown
"""


class CannotRun(Exception):
    """Nothing can be said about the release; the message is one sentence for the person who asked."""


class DoesNotRun(Exception):
    """One stage does not run under the release, which is a finding; the message says why."""
