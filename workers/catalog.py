"""What there is: every method, measure and runtime, found by looking into its folder.

The file's name is the id. A file that does not load, or does not hold exactly one class of its kind, stops
the start with its own traceback: a broken method is never skipped.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import TypeVar

from workers import measures, methods, runtimes
from workers.base import Measure, Method, Runtime

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


METHODS = found_in(methods, Method)
MEASURES = found_in(measures, Measure)  # type: ignore[type-abstract]
RUNTIMES = found_in(runtimes, Runtime)  # type: ignore[type-abstract]
