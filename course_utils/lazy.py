"""Names of a package that are imported when they are first used (PEP 562)."""

import importlib


def lazy_names(package, home):
    """The `__getattr__` and `__dir__` of a package: two functions.

    package: dict, the package's globals()
    home:    dict from each name (str) to the submodule (str) that has it
    """

    def load_name(name):
        if name not in home:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        package[name] = getattr(importlib.import_module(f".{home[name]}", package["__name__"]), name)
        return package[name]

    return load_name, lambda: sorted({*package, *home})
