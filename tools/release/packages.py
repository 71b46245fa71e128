"""Stage: what the two releases require, read from their METADATA."""

import re
from pathlib import Path

from .report import Section, code, count, folded


def requirements(release: Path) -> dict[tuple[str, str], str]:
    """{(package, its extra or marker): versions} of an unpacked release, with ("Python", "")."""
    (metadata,) = release.glob("*.dist-info/METADATA")
    found = {}
    for line in metadata.read_text(encoding="utf-8").split("\n\n")[0].splitlines():
        if python := re.match(r"Requires-Python: *(.*)", line):
            found["Python", ""] = _in_order(python[1])
        elif needed := re.match(r"Requires-Dist: *([\w.-]+)(\[[^]]*\])? *([^;]*)(?:; *(.*))?", line):
            key = needed[1].lower().replace("_", "-") + (needed[2] or ""), needed[4] or ""
            found[key] = _in_order(needed[3].strip(" ()"))
    return found


def _in_order(versions):
    return ", ".join(sorted(piece.strip() for piece in versions.split(",") if piece.strip()))


def stage(place) -> Section:
    """The requirements that changed; those of an extra are no work for the course."""
    old, new = requirements(place.old), requirements(place.new)
    needed, extras = [], []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, "not required"), new.get(key, "no longer required")
        if before != after:
            package, condition = key
            of_course = "extra" not in condition
            only = f" ({condition})" if condition else ""
            line = f"- {code(package)}{only}: {before or 'any'} → {after or 'any'}"
            (needed if of_course else extras).append(line)
    said = f"{count(len(needed), 'requirement')} changed, and {len(extras)} of extras."
    if not needed and not extras:
        said = f"The same requirements as {place.pinned}."
    body = "\n".join([*needed, "", folded("Of extras", extras)])
    return Section("Packages", said, body, moved=bool(needed))
