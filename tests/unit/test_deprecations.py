"""A test that uses something deprecated fails: a warning is an error, and so is what transformers logs."""

import logging
import warnings

import pytest
import torch
from transformers import DynamicCache

from course_utils.releases import cache_name
from tiny import tiny_gpt2


@pytest.mark.parametrize("kind", [DeprecationWarning, PendingDeprecationWarning, FutureWarning])
def test_a_warning_of_a_deprecation_is_an_error(kind):
    with pytest.raises(kind):
        warnings.warn_explicit("no more", kind, "library.py", 1, module="library")


def test_what_transformers_logs_as_deprecated_is_an_error():
    log = logging.getLogger("transformers.generation.utils")
    log.warning("This is appreciated.")
    with pytest.raises(DeprecationWarning, match="Use `decode` instead"):
        log.warning("`batch_decode` of one sequence is deprecated. Use `decode` instead.")


if cache_name() == "cache":

    def test_the_cache_by_its_old_name_is_an_error():
        with pytest.raises(FutureWarning, match="past_key_values"):
            tiny_gpt2()(torch.ones(1, 2, dtype=torch.long), past_key_values=DynamicCache())
