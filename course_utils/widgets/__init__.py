"""What a learner sees and touches: live views of the real model."""

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:  # what an editor and a type checker see of the names below
    from .beam_tree import BeamTree
    from .cache_growth import CacheGrowth
    from .chat_tokens import ChatTokens
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
    from .two_runs import TwoRuns

_HOME = {
    "BeamTree": "beam_tree",
    "CacheGrowth": "cache_growth",
    "ChatTokens": "chat_tokens",
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
    "TwoRuns": "two_runs",
}

__all__ = [
    "BeamTree",
    "CacheGrowth",
    "ChatTokens",
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
    "TwoRuns",
]
__getattr__, __dir__ = lazy_names(globals(), _HOME)
