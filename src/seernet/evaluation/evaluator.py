"""Measuring one policy: compress, calibrate, train for a short fixed schedule, score.

The score is read on the search split, which no training sees. Its seed derives from the policy and
the thread count is fixed, so a result depends neither on the order nor on the process.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from seernet.compression import MAP_BITS, at_once, compress, count, kept_channels, recalibrate_norms
from seernet.data import Augment, Dataset, Targets
from seernet.errors import ModelError, PolicyError, TrainingError
from seernet.evaluation.baseline import load_baseline
from seernet.evaluation.records import Divergence, Evaluation, EvaluationSpec
from seernet.graph import NetworkGraph
from seernet.models import in_mode, lay_out
from seernet.policy import FULL_BITS, Policy
from seernet.store import digest
from seernet.training import (
    Distillation,
    Recipe,
    make_optimizer,
    make_task,
    replay_on,
    reproducible,
    score,
    scored,
    seeded,
    train_steps,
)

WARMUP = 10  # one step in so many: without it some low-bit networks collapse to chance
# By torch, torchvision's detectors and torchmetrics, of networks whose outputs are out of bounds.
_RAISED = (RuntimeError, ArithmeticError, ValueError, IndexError, AssertionError)
# What torch and its libraries say when the machine, not the policy, is to blame; the last is all
# that oneDNN says when memory runs out.
_MACHINE = (
    *("memoryerror", "out of memory", "allocate memory", "not enough memory", "alloc_failed"),
    *("cuda error", "cuda driver error", "cudnn error", "cudnn algorithm"),
    *("unable to find an engine", "start new thread", "dataloader worker"),
    *("too many open files", "could not create a primitive"),
)


class Evaluator:
    """Measures policies of one network on one device.

    Args:
        spec: What decides a measurement.
    """

    def __init__(self, spec: EvaluationSpec) -> None:
        device = torch.device(spec.device)
        self.spec = spec
        self.graph = NetworkGraph.load(spec.baseline / "graph.json")
        self.dataset = Dataset.open(spec.prepared, device, spec.data.workers)
        self.model = load_baseline(spec.baseline, spec.model, self.dataset.info).to(device)
        lay_out(self.model, self.dataset.info.input_shape)
        teaches = spec.config.distillation > 0.0
        self._teacher_macs = count(self.model, self.dataset.info.input_shape).macs * teaches
        self.images = self.dataset.subset("train", spec.config.calibration_images, spec.seed)
        self.task = make_task(self.dataset.info)
        self._known: dict[bool, Tensor] = {}  # outputs of the uncompressed network

    def evaluate(self, policy: Policy) -> Evaluation:
        """Measure one policy; a failure of the measurement itself is a result, not an exception.

        Raises:
            SeerNetError: If data or baseline, which all policies share, are at fault.
        """
        reproducible(self.spec.config.threads)
        seed = int(digest([policy.to_dict(), self.spec.seed])[:12], 16)
        spent = 0
        try:
            network = compress(self.model, policy, self.graph, self.images)
            macs = count(network, self.graph.input_shape).macs
            spent = macs * (self._calibrating(policy) + self._training()) + self._taught()
            self._train(network, seed)
            found = score(network, scored(self.dataset, "search"), self.task)
            return Evaluation(found["score"], spent, soft_score=found.get("soft_score"))
        except (ModelError, PolicyError, TrainingError, MemoryError, *_RAISED) as error:
            return _failed(error, spent)

    def divergence(self, policy: Policy) -> Divergence:
        """How far a policy's network, calibrated but not trained, is from the uncompressed one.

        Raises:
            ModelError: If its outputs are not finite.
            PolicyError: If the policy is of another network.
        """
        reproducible(self.spec.config.threads)
        network = compress(self.model, policy, self.graph, self.images)
        bits = [*policy.weight_bits.values(), *policy.act_bits.values()]
        expected = self._expected(min(bits) < FULL_BITS)
        value = self.task.divergence(self._outputs(network), expected)
        if not math.isfinite(value):
            raise ModelError(
                "a network that is compressed in one place gives outputs that are not finite; "
                "check the baseline's weights."
            )
        macs = count(network, self.graph.input_shape).macs
        return Divergence(value, macs * (self._calibrating(policy) + len(self.images)))

    def _expected(self, quantized: bool) -> Tensor:
        """Outputs of the uncompressed network, calibrated like others.

        So no place is blamed for what all have in common: statistics of few images and, if
        `quantized`, feature maps in 8 bits. Both disturb some networks more than most places do.
        """
        if quantized not in self._known:
            names = [layer.name for layer in self.graph.layers]
            bits = dict.fromkeys(names, FULL_BITS)
            first = {names[0]: MAP_BITS} if quantized else {}
            network = compress(self.model, Policy({}, bits, bits | first), self.graph, self.images)
            self._known[quantized] = self._outputs(network)
        return self._known[quantized]

    @torch.no_grad()
    def _outputs(self, network: nn.Module) -> Tensor:
        """Raw outputs for the calibration images."""
        parts = torch.split(self.images, at_once(self.images))
        with in_mode(network, training=False):
            return torch.cat([network(part) for part in parts])

    def _train(self, network: nn.Module, seed: int) -> None:
        config = self.spec.config
        recipe = Recipe(
            learning_rate=config.learning_rate,
            step_learning_rate=config.step_learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            steps=config.steps,
            warmup=config.steps // WARMUP,
            precision=config.precision,
        )
        soft = Distillation(self.model.eval(), config.distillation, config.temperature)
        optimizer = make_optimizer(network, recipe)
        with seeded(seed):
            train_steps(
                network,
                self._batches(seed),
                self.task,
                optimizer,
                recipe,
                soft=soft,
                replay=replay_on(network),
            )
        recalibrate_norms(network, self.images)

    def _batches(self, seed: int) -> Iterator[tuple[Tensor, Targets]]:
        augment = Augment(self.spec.data.crop_padding, self.spec.data.flip)
        size = self.spec.config.batch_size
        loader = self.dataset.loader("train", size, augment=augment, seed=seed)
        epochs = (loader.epoch(number) for number in itertools.count())
        return itertools.islice(itertools.chain.from_iterable(epochs), self.spec.config.steps)

    def _calibrating(self, policy: Policy) -> int:
        """Forward passes of single images that `compress` takes."""
        shifted = bool(kept_channels(self.model, policy, self.graph))
        seen = min(len(self.images), at_once(self.images))
        return (1 + shifted) * len(self.images) + seen

    def _training(self) -> int:
        """Such passes from there to the score; a training step costs three."""
        config, counts = self.spec.config, self.dataset.info.counts
        trained = 3 * config.steps * min(config.batch_size, counts["train"])
        return trained + len(self.images) + counts["search"]

    def _taught(self) -> int:
        """MACs of the baseline that teaches, if it does: a forward pass for each image trained."""
        config, images = self.spec.config, self.dataset.info.counts["train"]
        return self._teacher_macs * config.steps * min(config.batch_size, images)


def _failed(error: Exception, spent: int) -> Evaluation:
    cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Evaluation(None, spent, cause, final=not any(sign in cause.lower() for sign in _MACHINE))


@functools.lru_cache(maxsize=1)
def _evaluator(spec: str) -> Evaluator:
    return Evaluator(_SPECS[spec])


_SPECS: dict[str, EvaluationSpec] = {}


def evaluate_policy(job: tuple[EvaluationSpec, dict[str, Any]]) -> Evaluation:
    """Measure one policy in a worker process, which keeps network and data between calls."""
    spec, policy = job
    name = repr(spec)
    _SPECS.setdefault(name, spec)
    return _evaluator(name).evaluate(Policy.from_dict(policy))


def policy_divergence(job: tuple[EvaluationSpec, dict[str, Any]]) -> Divergence:
    """Measure one policy's divergence in a worker process; see `evaluate_policy`."""
    spec, policy = job
    name = repr(spec)
    _SPECS.setdefault(name, spec)
    return _evaluator(name).divergence(Policy.from_dict(policy))
