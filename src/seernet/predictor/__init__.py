"""The accuracy predictor: from features of a policy to a posterior over its score.

A short way through: `scaling` standardizes features and turns scores into log errors; `gp` and
`ensemble` learn in those units; `fitting` holds the registry of families and turns their posterior
back into score units; `validation` compares families on held-out rows; `storage` keeps a predictor
in files. Features come from elsewhere: nothing here knows of policies or networks.
"""

from seernet.predictor.fitting import FAMILIES, FittedPredictor, fit
from seernet.predictor.interface import Posterior, Predictor, single_thread
from seernet.predictor.storage import load, save
from seernet.predictor.validation import CrossValidation, assess, cross_validate, select

__all__ = [
    "FAMILIES",
    "CrossValidation",
    "FittedPredictor",
    "Posterior",
    "Predictor",
    "assess",
    "cross_validate",
    "fit",
    "load",
    "save",
    "select",
    "single_thread",
]
