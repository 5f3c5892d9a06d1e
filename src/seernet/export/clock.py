"""Timing exported layers and networks in ONNX Runtime."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from seernet.export.layers import Clip, Part, Shape, clip_model, layer_model
from seernet.export.onnx_file import session

COPIES = 4  # of a layer, in one run, so that starting the run does not count much
LAYER_SECONDS = 0.02  # for each layer and pair of channel counts
NETWORK_SECONDS = 0.2  # for each whole network
FEWEST = 5  # runs
REFERENCE = Shape(16, 16, (16, 16), (3, 3), (1, 1), (1, 1), (1, 1))
REFERENCE_SECONDS = 0.002
USUAL = 1.15  # times the reference's best time
PATIENCE = 20.0  # seconds, for one run
ALL_PATIENCE = 300.0  # and for all of them
WARM_UP = 4.0  # seconds in which the reference shows its best time


class Clock:
    """Times runs of ONNX Runtime while nothing else slows the machine down.

    A machine that is shared can be slower for seconds at a time. So a small reference layer is
    timed before and after, and what was timed while it took longer than usual is timed again.

    Args:
        threads: CPU threads of ONNX Runtime.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.disturbed = 0
        self._patience = ALL_PATIENCE
        self._reference = self._run(layer_model(REFERENCE, 1).SerializeToString(), REFERENCE.given)
        self._usual = math.inf
        end = time.perf_counter() + WARM_UP
        while time.perf_counter() < end:
            self._slowness()

    def part(self, one: Part) -> float:
        """Milliseconds of one layer alone, or of the clip of its input."""
        model = clip_model(one, COPIES) if isinstance(one, Clip) else layer_model(one, COPIES)
        return self(self._run(model.SerializeToString(), one.given), LAYER_SECONDS) / COPIES

    def network(self, file: bytes, size: tuple[int, ...]) -> float:
        """Milliseconds of one image, uint8 of a shape, in an exported network."""
        return self(self._run(file, size), NETWORK_SECONDS)

    def __call__(self, run: Callable[[], None], seconds: float) -> float:
        """Median milliseconds of a call, over some seconds; the fastest try if none is quiet."""
        tries = []
        start = time.perf_counter()
        end = start + min(PATIENCE, self._patience)
        while True:
            before = self._slowness()
            middle, spread = _timed(run, seconds)
            tries.append(middle)
            if max(before, spread, self._slowness()) <= USUAL:
                return middle
            if time.perf_counter() > end:
                self.disturbed += 1
                self._patience = max(0.0, self._patience - (time.perf_counter() - start))
                return min(tries)

    def _slowness(self) -> float:
        now, _ = _timed(self._reference, REFERENCE_SECONDS)
        self._usual = min(self._usual, now)
        return now / self._usual

    def _run(self, model: bytes, size: tuple[int, ...]) -> Callable[[], None]:
        """One run on one input; what it gives stays where the runtime put it."""
        one = session(model, self.threads)
        image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        binding = one.io_binding()
        binding.bind_cpu_input(one.get_inputs()[0].name, image)
        for output in one.get_outputs():
            binding.bind_output(output.name)
        return lambda: one.run_with_iobinding(binding)


def _timed(run: Callable[[], None], seconds: float) -> tuple[float, float]:
    """Median milliseconds of a call, and how much longer that is than the fastest tenth."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    fast, middle = np.quantile(times[1:], (0.1, 0.5))
    return 1000.0 * float(middle), float(middle / fast)
