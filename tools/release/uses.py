"""Where the course, its library and its tests use a name of transformers."""

import ast
import io
import re
import tokenize
from pathlib import Path

from .processes import tracked
from .report import count

FOLDERS = ("course_utils", "notebooks/source", "tests")
# A word that no sentence has by chance: with an underscore or a capital inside.
TECHNICAL = re.compile(r"\w*(_\w|[a-z][A-Z])\w*")


class Uses:
    """Words of the course's code, and technical words of its texts, with the lines that have them."""

    def __init__(self, root: Path):
        self.words: dict[str, list[tuple[str, int]]] = {}
        self.imports: set[str] = set()  # dotted names below transformers
        self.shows: list[tuple[str, int, str]] = []  # (file, line, the call of library.show)
        self.texts: dict[str, str] = {}  # of each file, on one line, without quotation marks
        self._told: set[tuple] = set()
        files = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
        for path in tracked(files, "reading the course"):
            self._read(path, path.relative_to(root).as_posix())

    def _read(self, path, name):
        text = path.read_text(encoding="utf-8")
        self.texts[name] = " ".join(re.sub(r"[\"'\n#`]+", " ", text).split())
        with_words = set()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME:
                with_words.add((token.string, token.start[0]))
            elif token.type not in (tokenize.OP, tokenize.NUMBER, tokenize.NL, tokenize.NEWLINE):
                for offset, line in enumerate(token.string.split("\n")):
                    for word in re.findall(r"[^\W\d]\w*", line):
                        if TECHNICAL.fullmatch(word):
                            with_words.add((word, token.start[0] + offset))
        for word, line in sorted(with_words, key=lambda pair: pair[1]):
            self.words.setdefault(word, []).append((name, line))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                module, _, below = node.module.partition(".")
                if module == "transformers":
                    self.imports |= {f"{below}.{alias.name}".lstrip(".") for alias in node.names}
            elif (
                name.startswith("notebooks/")
                and isinstance(node, ast.Call)
                and ast.unparse(node.func) == "library.show"
            ):
                self.shows.append((name, node.lineno, ast.unparse(node)))

    def modules(self, package: Path) -> set[str]:
        """The modules below `transformers` that the course imports or names."""
        named = set()
        for name in self.imports | self._dotted():
            parts = name.split(".")
            for length in range(len(parts), 0, -1):
                path = package.joinpath(*parts[:length])
                if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
                    named.add(".".join(parts[:length]))
                    break
        return named

    def _dotted(self):
        pattern = re.compile(r"\b(?:transformers\.)?((?:generation|models|utils|\w+_utils\w*)(?:\.\w+)+)")
        found = {match for text in self.texts.values() for match in pattern.findall(text)}
        return found | set(re.findall(r"\btransformers\.(\w+)", " ".join(self.texts.values())))

    def has(self, word: str) -> bool:
        return word in self.words

    def calls(self, function: str) -> bool:
        """Whether the course may call a function, by a dotted name."""
        *_, owner, name = ["", *function.split(".")]
        if name in ("forward", "__call__"):
            return True  # called as model(…), so no line has the name
        return self.has(owner if name == "__init__" else name)

    def said(self, *words: str) -> str:
        """ "46 lines of the course (…) and 49 of the tests (…)", "" where nobody uses any of them; the lines
        of the same words are listed once only."""
        lines = sorted({place for word in words for place in self.words.get(word, [])})
        known, parts = words in self._told, []
        self._told.add(words)
        for what, of_tests in (("the course", False), ("the tests", True)):
            files: dict[str, list[int]] = {}
            for name, line in lines:
                if name.startswith("tests/") == of_tests:
                    files.setdefault(name, []).append(line)
            if files:
                where = "; ".join(f"{name} {_numbers(numbers)}" for name, numbers in files.items())
                number = count(sum(map(len, files.values())), "line")
                parts.append(f"{number} of {what}{'' if known else f' ({where})'}")
        return " and ".join(parts)

    def quotes(self, message: str, words: int = 5) -> list[str]:
        """The files that have five words in a row of a message."""
        pieces = set()
        for part in message.split("{…}"):
            each = part.replace("`", "").split()
            pieces |= {" ".join(each[i : i + words]) for i in range(len(each) - words + 1)}
        return [name for name, text in self.texts.items() if any(piece in text for piece in pieces)]


def _numbers(numbers, limit=12):
    shown = " ".join(map(str, numbers[:limit]))
    return shown + (" …" if len(numbers) > limit else "")
