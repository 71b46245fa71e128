import json

import traitlets

from course_utils import CourseError
from course_utils.lessons import lesson00
from course_utils.widgets import Quiz, base


class Echo(base.CourseWidget):
    _esm = "function render() {}\nexport default { render };\n"
    data = traitlets.Bytes(b"\x00\xff").tag(sync=True)
    word = traitlets.Unicode("</script><b>").tag(sync=True)

    def summary(self):
        return f"Echo({self.word!r})"

    def still(self):
        return base.html_table(["word"], [[self.word]])

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
    assert json.loads(json.dumps(state, default=base._bytes_as_json))["data"] == {"$bytes": "AP8="}


class Other(Echo):
    _esm = "function render() { return 1; }\nexport default { render };\n"


def test_a_page_with_several_widgets_holds_each_module_once():
    known = set()
    pages = [base.drop_known_modules(widget().page(), known) for widget in (Echo, Echo, Other, Other)]
    assert [page.count("</script>") for page in pages] == [3, 1, 2, 1]
    assert len(known) == 3


def test_what_all_widgets_share_is_no_part_of_a_widgets_own_module():
    widget = Quiz(lesson00.quiz)
    shared, own, _ = widget.page().split("</script>\n", 2)
    for piece in ("function element(", "--course-edge:"):
        assert piece in shared
        assert piece not in own
    assert "function element(" in widget._esm
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


def test_what_cannot_be_seen_is_made_visible():
    assert base.visible(" a\n\tb\u200b\u202e") == "·a⏎⇥bU+200BU+202E"


def test_modules_are_joined(tmp_path):
    (tmp_path / "shared.js").write_text("export function help() {}\nconst own = 1;\n")
    (tmp_path / "a.js").write_text('import { help } from "./shared.js";\nfunction render() { help(); }\n')
    assert base._one_module(tmp_path / "a.js") == (
        "function help() {}\nconst own = 1;\nfunction render() { help(); }\n"
    )


def test_a_module_that_two_import_is_written_in_once(tmp_path):
    (tmp_path / "shared.js").write_text("export const one = 1;\n")
    (tmp_path / "batch.js").write_text('import { one } from "./shared.js";\nexport const two = one + one;\n')
    imports = 'import { one } from "./shared.js";\nimport { two } from "./batch.js";\n'
    for order in (imports, "\n".join(reversed(imports.splitlines())) + "\n"):
        (tmp_path / "a.js").write_text(order + "one + two;\n")
        assert base._one_module(tmp_path / "a.js") == "const one = 1;\nconst two = one + one;\none + two;\n"


def test_style_sheets_are_joined(tmp_path):
    (tmp_path / "batch.css").write_text(".a { top: 0; }\n")
    (tmp_path / "b.css").write_text('@import "./batch.css";\n.b { top: 1px; }\n')
    assert base._one_style(tmp_path / "b.css") == ".a { top: 0; }\n.b { top: 1px; }\n"


def test_a_saved_style_loses_spaces_that_mean_nothing_and_no_others():
    style = ".a :is(b, c) {\n  margin: 0 1px;\n  .d > e { top: calc(1px + 2px); }\n}\n.f\n.g { left: 0; }\n"
    assert base._in_one_line(style) == (
        ".a :is(b,c){margin: 0 1px;.d > e{top: calc(1px + 2px)}}.f .g{left: 0}"
    )


def test_a_saved_module_loses_the_line_feeds_that_mean_nothing_and_no_others():
    lines = [
        "const a = {",
        "one: 1, // of two,",
        "two: [",
        "2,",
        "],",
        "};",
        "const b = c",
        "? d",
        ": (e) =>",
        "e && f ||",
        "g;",
        "function h() {",
        "return i",
        "}",
        "const [j] = k",
        "(l)",
        "++m",
    ]
    assert base._in_fewer_lines("\n".join(lines)).split("\n") == [
        "const a = { one: 1, // of two,",
        "two: [ 2, ], }; const b = c ? d : (e) => e && f || g; function h() { return i }",
        "const [j] = k",
        "(l)",
        "++m",
    ]
