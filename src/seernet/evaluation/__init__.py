"""Evaluation: measuring policies, one or many, durably."""

from seernet.evaluation.baseline import load_baseline, save_baseline
from seernet.evaluation.evaluator import Evaluator, evaluate_policy
from seernet.evaluation.finetuning import (
    Finetuner,
    Folders,
    Job,
    Run,
    finetune,
    read_network,
    save_network,
)
from seernet.evaluation.measure import Measurer, context_of, measuring
from seernet.evaluation.pretraining import Pretrainer
from seernet.evaluation.records import Divergence, Evaluation, EvaluationSpec

__all__ = [
    "Divergence",
    "Evaluation",
    "EvaluationSpec",
    "Evaluator",
    "Finetuner",
    "Folders",
    "Job",
    "Measurer",
    "Pretrainer",
    "Run",
    "context_of",
    "evaluate_policy",
    "finetune",
    "load_baseline",
    "measuring",
    "read_network",
    "save_baseline",
    "save_network",
]
