"""What a learner sees and touches: live views of the real model."""

from ..lazy import lazy_names

_HOME = {
    "BeamTree": "beam_tree",
    "CacheGrowth": "cache_growth",
    "CourseWidget": "core.widget",
    "EstimatorRace": "estimator_race",
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

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(globals(), _HOME)
