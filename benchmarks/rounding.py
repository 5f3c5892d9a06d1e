"""How much of a quantized network's score is rounding: float32 against float64.

What enters each quantizer is changed by a relative error as large as one rounding, drawn anew for
each repetition: as another processor, or another order of additions, would. The networks of a
record are scored so on the search split.

    python benchmarks/rounding.py bccd-ssdlite --data data/raw/bccd
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from _shared import ROOT, markdown, write_summary
from torch import Tensor, nn

from seernet.compression import quantizers
from seernet.config import load as load_params
from seernet.data import Dataset, prepare
from seernet.export import load
from seernet.training import Exact, make_task, score, scored

ROUNDING = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}


def nudge(network: nn.Module, dtype: torch.dtype, seed: int) -> None:
    """Let all quantizers of a network see what rounding differently would give them."""
    stream = torch.Generator().manual_seed(seed)

    def change(_: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
        (x,) = given
        noise = torch.randn(x.shape, generator=stream, dtype=torch.float64)
        return (x.double() * (1.0 + ROUNDING[dtype] * noise)).to(x.dtype)

    for module in quantizers(network):
        module.register_forward_pre_hook(change)


def main() -> None:
    """Score a record's networks with rounding of both kinds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", help="the record")
    parser.add_argument("--data", help="folder of the data set, in place of the recorded one")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    record = ROOT / "docs" / "results" / arguments.name
    params = load_params(record / "params.yaml")
    data = params.data.model_copy(update={"path": arguments.data} if arguments.data else {})
    rows, found = [], {}
    with tempfile.TemporaryDirectory(prefix="seernet-rounding-") as folder:
        prepare(data, params.seed, Path(folder) / "prepared", 1)
        dataset = Dataset.open(Path(folder) / "prepared", torch.device("cpu"), params.data.workers)
        task = make_task(dataset.info)
        for place in sorted((record / "networks").glob("*/seed-*")):
            name = f"{place.parent.name}, {place.name}"
            scores: dict[str, list[float]] = {}
            for dtype in ROUNDING:
                for seed in range(arguments.repetitions):
                    network = load(place, trust_code=True)
                    if dtype == torch.float64:
                        network = Exact(network)
                    nudge(network, dtype, seed)
                    result = score(network, scored(dataset, "search"), task)["score"]
                    scores.setdefault(str(dtype).removeprefix("torch."), []).append(result)
            found[name] = scores
            ranges = (f"{min(each):.4f} to {max(each):.4f}" for each in scores.values())
            rows.append([name, *ranges])
            print(" | ".join(rows[-1]), flush=True)
    print(markdown(["network", "float32", "float64"], rows))
    write_summary("rounding", {"record": arguments.name, "scores": found})


if __name__ == "__main__":
    main()
