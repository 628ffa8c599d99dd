"""Every error a person can meet, as one tree.

    ParedownError            where + what (with the value) + what to do
    ├── FileRefused          an upload that is not what it says, or is dangerous
    │   ├── ModelRefused
    │   │   └── SettingRefused  what was said beside the file (architecture, size, mean, std) does not fit it
    │   └── DatasetRefused
    ├── RecipeRefused        a recipe with an unknown step, field or value
    ├── StepFailed           a method that cannot do what was asked of this model
    ├── GateFailed           a result that does not equal what it was made from; nothing is handed out
    └── SomethingMissing     a package, program or download that is not there

Anything else that is raised is a defect of Paredown, not of the user's input.
"""


class ParedownError(Exception):
    """An error a person can act on.

    where: the file, field or step, e.g. ``recipe.yaml: steps.0.amount``.
    what: what is wrong, with the offending value.
    fix: what to do about it; a sentence, or lines of code.
    """

    def __init__(self, where: str, what: str, fix: str) -> None:
        self.where, self.what, self.fix = where, what, fix
        super().__init__(f"{where}: {what} {fix}")

    def __reduce__(self) -> tuple[type["ParedownError"], tuple[str, str, str]]:
        # The default would call the class with the one joined message.
        return type(self), (self.where, self.what, self.fix)


class FileRefused(ParedownError):
    """The file was not taken in; nothing of it was kept."""


class ModelRefused(FileRefused):
    """The model file was not taken in."""


class SettingRefused(ModelRefused):
    """Another setting beside the same file may do: a field of the form, an option of the command."""


class DatasetRefused(FileRefused):
    """The dataset was not taken in."""


class RecipeRefused(ParedownError):
    """The recipe cannot be carried out as written."""


class StepFailed(ParedownError):
    """A step could not do to this model what its settings ask."""


class GateFailed(ParedownError):
    """A check that compares a result with what it was made from did not pass."""


class SomethingMissing(ParedownError):
    """Something outside Paredown is needed and not there."""
