"""What there is: every method, measure and runtime, found by looking into its folder.

The file's name is the id. A file that does not load, or does not hold exactly one class of its kind, stops
the start with its own traceback: a broken method is never skipped.
"""

from workers import measures, methods, runtimes
from workers.base import Measure, Method, Runtime
from workers.folders import found_in as found_in

METHODS = found_in(methods, Method)  # type: ignore[type-abstract]
MEASURES = found_in(measures, Measure)  # type: ignore[type-abstract]
RUNTIMES = found_in(runtimes, Runtime)  # type: ignore[type-abstract]
