import pickle

from workers.errors import ModelRefused, ParedownError


def test_message_says_where_what_and_fix() -> None:
    error = ModelRefused("a.pt", "holds 3 classes.", "Upload a model with at least 10.")
    assert str(error) == "a.pt: holds 3 classes. Upload a model with at least 10."


def test_error_survives_the_way_between_processes() -> None:
    """Workers hand errors to their parent; a plain Exception with three arguments would break here."""
    error = pickle.loads(pickle.dumps(ModelRefused("a", "b", "c")))
    assert isinstance(error, ParedownError)
    assert (error.where, error.what, error.fix) == ("a", "b", "c")
