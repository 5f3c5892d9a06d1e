"""Policies, the space they live in, their cost, and the budgets on it: pure values, no networks."""

from seernet.policy.budget import (
    LATENCY,
    Bound,
    bounds,
    check_budgets,
    checked_space,
    without_latency,
)
from seernet.policy.cost import CostModel, Costs
from seernet.policy.features import FeatureMap
from seernet.policy.known import load_policies, save_policies
from seernet.policy.latency import LatencyTable, LayerTimes
from seernet.policy.policy import FULL_BITS, Policy
from seernet.policy.sensitivity import (
    Probe,
    Sensitivity,
    probe_policy,
    probes,
    save_divergences,
)
from seernet.policy.space import SearchSpace

__all__ = [
    "FULL_BITS",
    "LATENCY",
    "Bound",
    "CostModel",
    "Costs",
    "FeatureMap",
    "LatencyTable",
    "LayerTimes",
    "Policy",
    "Probe",
    "SearchSpace",
    "Sensitivity",
    "bounds",
    "check_budgets",
    "checked_space",
    "load_policies",
    "probe_policy",
    "probes",
    "save_divergences",
    "save_policies",
    "without_latency",
]
