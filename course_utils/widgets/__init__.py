"""What a learner sees and touches: live views of the real model."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:  # what an editor and a type checker see of the names below
    from .beam_tree import BeamTree
    from .cache_growth import CacheGrowth
    from .core.widget import CourseWidget
    from .estimator_race import EstimatorRace
    from .find_message import FindMessage
    from .gradient_link import GradientLink
    from .mask_view import MaskView
    from .next_token import NextToken
    from .padding_grid import PaddingGrid
    from .question import Predict, Quiz
    from .scored_text import ScoredText
    from .stepper import Stepper
    from .token_chips import TokenChips

_HOME = {
    "BeamTree": "beam_tree",
    "CacheGrowth": "cache_growth",
    "CourseWidget": "core.widget",
    "EstimatorRace": "estimator_race",
    "FindMessage": "find_message",
    "GradientLink": "gradient_link",
    "MaskView": "mask_view",
    "NextToken": "next_token",
    "PaddingGrid": "padding_grid",
    "Predict": "question",
    "Quiz": "question",
    "ScoredText": "scored_text",
    "Stepper": "stepper",
    "TokenChips": "token_chips",
}

__all__ = [
    "BeamTree",
    "CacheGrowth",
    "CourseWidget",
    "EstimatorRace",
    "FindMessage",
    "GradientLink",
    "MaskView",
    "NextToken",
    "PaddingGrid",
    "Predict",
    "Quiz",
    "ScoredText",
    "Stepper",
    "TokenChips",
]
__getattr__, __dir__ = lazy_names(globals(), _HOME)
