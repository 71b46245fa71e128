import json
import re
import shutil
import subprocess

import pytest
import traitlets

from course_utils import CourseError, widgets
from course_utils.lessons import lesson00
from course_utils.widgets import Quiz
from course_utils.widgets.core import bundle, saved_page
from course_utils.widgets.core.labels import visible
from course_utils.widgets.core.text import html_table
from course_utils.widgets.core.widget import CourseWidget


class Echo(CourseWidget):
    _esm = "function render() {}\nexport default { render };\n"
    data = traitlets.Bytes(b"\x00\xff").tag(sync=True)
    word = traitlets.Unicode("</script><b>").tag(sync=True)

    def summary(self):
        return f"Echo({self.word!r})"

    def still(self):
        return html_table(["word"], [[self.word]])

    def answer(self, request):
        if request == "refuse":
            raise CourseError("Not this one.")
        if request == "interrupt":
            raise KeyboardInterrupt
        self.word = request["say"]


def sent(widget, content):
    messages = []
    widget.send = messages.append
    widget._receive(widget, content, [])
    return messages


def test_bundle_has_text_still_and_view():
    data, _ = Echo()._repr_mimebundle_()
    assert data["text/plain"] == repr(Echo()) == "Echo('</script><b>')"
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/html"].count("</script>") == 3  # what all share, the module, and this view of it
    assert '<td style="text-align:left">&lt;/script&gt;&lt;b&gt;</td>' in data["text/html"]


def test_page_state_is_the_widgets_own_traits_with_bytes_as_base64():
    state = Echo().page_state()
    assert state == {"data": b"\x00\xff", "word": "</script><b>", "live": False}
    assert '{"data":{"$bytes":"AP8="},"live":false' in Echo().page()
    assert json.loads(json.dumps(state, default=saved_page._bytes_as_json))["data"] == {"$bytes": "AP8="}


class Other(Echo):
    _esm = "function render() { return 1; }\nexport default { render };\n"


def test_a_page_with_several_widgets_holds_each_module_once():
    known = set()
    pages = [saved_page.drop_known_modules(widget().page(), known) for widget in (Echo, Echo, Other, Other)]
    assert [page.count("</script>") for page in pages] == [3, 1, 2, 1]
    assert len(known) == 3


def test_what_all_widgets_share_is_no_part_of_a_widgets_own_module():
    widget = Quiz(lesson00.quiz)
    shared, own, _ = widget.page().split("</script>\n", 2)
    for piece in ("data-lm-suppress-shortcuts", "--course-edge:"):
        assert piece in shared
        assert piece not in own
    assert "data-lm-suppress-shortcuts" in widget._esm
    assert "--course-edge:" in widget._css


def test_view_name_follows_the_content():
    assert Echo().page() == Echo().page()
    assert Echo().page() != Echo(word="other").page()


def test_requests_are_answered_by_number():
    widget = Echo()
    assert sent(widget, {"number": "a:1", "request": {"say": "hello"}}) == [{"number": "a:1"}]
    assert widget.word == "hello"
    assert sent(widget, {"number": "a:2", "request": "refuse"}) == [
        {"number": "a:2", "error": "Not this one."}
    ]
    (reply,) = sent(widget, {"number": "a:3", "request": {}})
    assert reply == {"number": "a:3", "error": "KeyError: 'say'"}
    (reply,) = sent(widget, {"number": "a:4", "request": "interrupt"})
    assert reply["error"].startswith("The kernel was interrupted")


def test_invisible_characters_are_made_visible():
    assert visible(" a\n\tb\u200b\u202e") == "·a⏎⇥bU+200BU+202E"


def run_module(text):
    """What a module's function `render` returns, run by Node as JavaScript."""
    node = shutil.which("node")
    if node is None:  # the browser tests run every widget's module anyway
        return None
    script = re.sub(r"export default ?{ ?render ?};?", "console.log(JSON.stringify(render()));", text)
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, check=True)
    return json.loads(done.stdout)


def test_modules_that_use_the_same_names_are_joined_each_in_a_scope_of_its_own(tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "view").mkdir()
    (tmp_path / "core" / "numbers.js").write_text(
        "const whole = 1; // private, and used by all three\nexport const one = whole;\n"
        "export function twice(number) {\n  return 2 * number;\n}\n"
    )
    (tmp_path / "view" / "parts.js").write_text(
        'import { one, twice as doubled } from "../core/numbers.js";\n'
        "const whole = doubled(one);\nexport const two = whole;\n"
    )
    (tmp_path / "view" / "view.js").write_text(
        'import { one } from "../core/numbers.js";\nimport { two } from "./parts.js";\n'
        "const whole = 100;\nfunction render() {\n  return [whole, one, two];\n}\n"
        "export default { render };\n"
    )
    joined = bundle.bundle(tmp_path / "view" / "view.js")
    assert joined.count("const one =") == 1  # written in once, though two import it
    assert run_module(joined) in ([100, 1, 2], None)
    given = bundle.bundle(tmp_path / "view" / "view.js", [tmp_path / "core" / "numbers.js"])
    assert "const one =" not in given and "= core_numbers;" in given
    scope = bundle.scoped(tmp_path / "core" / "numbers.js")
    assert run_module(f"const core_numbers = {scope};\n{given}") in ([100, 1, 2], None)


def test_style_sheets_are_joined(tmp_path):
    (tmp_path / "batch.css").write_text(".a { top: 0; }\n")
    (tmp_path / "b.css").write_text('@import "./batch.css";\n.b { top: 1px; }\n')
    assert bundle.style(tmp_path / "b.css") == ".a{top:0}.b{top:1px}"


def test_a_space_in_a_nested_rule_is_kept(tmp_path):
    (tmp_path / "a.css").write_text(".a { table :is(td) { top: 0; } }\n")
    assert "table :is(td)" in bundle.style(tmp_path / "a.css")


def test_a_smaller_module_is_the_same_program():
    module = (
        "const step = 3;\nconst a = `x ${`step  ${1 + step} of ${4}`} // no comment`;\n// a comment\n"
        "/** another */\nconst r = /[/]\\/\\s/g;\nlet b = 1\n++b\n\n"
        "const end = '</script>', start = '<' + '/SCRIPT' + '>';\n"
        "function render() {\n  return [a, r.source, b, end, start, typeof step]\n}\n"
        "export default { render };\n"
    )
    smaller = bundle.smaller(module)
    assert "comment */" not in smaller and "a comment" not in smaller.replace("no comment", "")
    assert "</script" not in smaller.lower()
    assert len(smaller) < len(module)
    assert run_module(smaller) == run_module(module)


@pytest.mark.parametrize("name", [name for name in widgets.__all__ if name != "CourseWidget"])
def test_every_module_and_sheet_is_minified(name):
    """minify-html leaves what it cannot read as it was."""
    widget = getattr(widgets, name)
    assert widget._own_module  # whole enough to be minified by itself: nothing in it is for others
    for text in (widget._esm, widget._css, bundle.smaller(widget._own_module)):
        assert not re.search(r"[;{},]\n|/\*(?! @__PURE__)", text)


def test_what_a_page_holds_is_minified():
    shared, own, _ = Quiz(lesson00.quiz).page().split("</script>\n", 2)
    for script in (shared, own):
        assert not re.search(r"[;{},]\n", script.split("<script", 1)[1])
