"""The lessons' diagrams are what tools/draw_diagrams.py draws, read in any theme, and need nothing else."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

import draw_diagrams
from draw_diagrams import DIAGRAMS, FOLDER

SOURCES = FOLDER.parent / "source"


def luminance(color):
    values = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_files_are_as_drawn():
    assert draw_diagrams.main(["--check"]) == 0
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.svg" for name in DIAGRAMS}


def test_check_names_what_differs_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(draw_diagrams, "FOLDER", tmp_path)
    assert draw_diagrams.main(["--check"]) == 1
    assert "block.svg" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert draw_diagrams.main([]) == 0 and draw_diagrams.main(["--check"]) == 0


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_stands_alone_and_says_what_it_shows(name):
    text = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    said = {node.tag.rpartition("}")[2]: node.text for node in root}
    assert said["title"] and len(said["desc"]) > 100
    assert len(text) < 15_000
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|<script|@import|href=", text)
    width, height = (float(root.get(side)) for side in ("width", "height"))
    assert width <= 800
    for node in root.iter("{http://www.w3.org/2000/svg}text"):
        x, y, size = (float(node.get(key)) for key in ("x", "y", "font-size"))
        share = {"start": (0, 1), "middle": (0.5, 0.5), "end": (1, 0)}[node.get("text-anchor")]
        length = 0.56 * size * len(node.text)
        assert x - share[0] * length > 0 and x + share[1] * length < width and size < y < height, node.text
        assert size >= 11


def test_ink_on_every_fill_has_contrast():
    ink = luminance(draw_diagrams.INK)
    for fill in draw_diagrams.FILLS.values():
        assert (luminance(fill) + 0.05) / (ink + 0.05) >= 4.5


def test_lessons_show_diagrams_that_exist_with_a_text_for_who_cannot_see_them():
    shown = set()
    for path in SOURCES.glob("*.py"):
        for alt, name in re.findall(r"!\[([^\]]*)\]\(images/(\w+)\.svg\)", path.read_text(encoding="utf-8")):
            assert name in DIAGRAMS and len(alt) > 40, (path.name, name)
            shown.add(name)
    assert shown == set(DIAGRAMS), f"in no lesson: {sorted(set(DIAGRAMS) - shown)}"
