"""Find what there is by looking into a folder: one class per file, the file's name is its id."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import TypeVar

T = TypeVar("T")


def found_in(package: ModuleType, kind: type[T]) -> Mapping[str, type[T]]:
    """The one concrete subclass of `kind` in each module of `package`, by the module's name.

    Raises TypeError for a module that defines none or several.
    """
    catalogue: dict[str, type[T]] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, kind)
            and value.__module__ == module.__name__
            and not inspect.isabstract(value)
        ]
        if len(classes) != 1:
            raise TypeError(f"{module.__name__} defines {len(classes)} classes of {kind.__name__}, not one")
        catalogue[info.name] = classes[0]
    return MappingProxyType(catalogue)
