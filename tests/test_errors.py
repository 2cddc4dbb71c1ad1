import copy
import pickle

import pytest
from helpful import helpful

import phi3v_helpers as p3v
from phi3v_helpers.errors import ImageError, LoadError, Phi3VError, PromptError


@pytest.mark.parametrize("kind", [Phi3VError, ImageError, PromptError, LoadError])
def test_an_error_is_two_sentences(kind):
    error = kind("The file is empty.", "Save it again.")
    assert str(error) == "The file is empty. Save it again."
    assert (error.what, error.advice) == ("The file is empty.", "Save it again.")
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(same) is kind and str(same) == str(error) and same.advice == error.advice


def test_all_are_one_class_and_bad_values_are_value_errors():
    for kind in (ImageError, PromptError, LoadError):
        assert issubclass(kind, p3v.Phi3VError)
    assert issubclass(ImageError, ValueError) and issubclass(PromptError, ValueError)
    assert not issubclass(LoadError, ValueError)


def test_the_check_of_errors_finds_bad_ones():
    with pytest.raises(AssertionError), helpful(Phi3VError):
        raise Phi3VError("no full stop", "Do this.")
    with pytest.raises(AssertionError), helpful(Phi3VError, "missing word"):
        raise Phi3VError("This is wrong.", "Do this.")
