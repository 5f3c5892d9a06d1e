"""Does more training still pay? The baseline itself, finetuned as its policies are.

What a longer training gives the uncompressed network is no merit of any policy. Run the pipeline
first, as far as `pretrain`. Scores are of the search split; `--test` adds those of the test split.

    dvc repro pretrain && python benchmarks/ceiling.py
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from seernet import artifacts
from seernet.config import load
from seernet.device import resolve
from seernet.evaluation import Finetuner, Folders, Job, finetune
from seernet.policy import FULL_BITS, Policy
from seernet.training import score, scored


def main() -> None:
    """Print the baseline's scores before and after, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test", action="store_true", help="read the test split too")
    arguments = parser.parse_args()
    params = resolve(load())
    with TemporaryDirectory() as progress:
        folders = Folders(artifacts.PREPARED, artifacts.BASELINE, Path(progress))
        finetuner = Finetuner(params, folders)
        bits = {layer.name: FULL_BITS for layer in finetuner.graph.layers}
        whole = Policy({}, bits, bits)
        jobs = [Job(whole, seed, "baseline") for seed in params.finetune.seeds]
        runs = finetune(finetuner, jobs)
    before = score(finetuner.baseline, scored(finetuner.dataset, "search"), finetuner.task)
    found = {
        "epochs": params.finetune.epochs,
        "search_score": before["score"],
        "search_score_finetuned": statistics.mean(run.search_score for run in runs),
        "seeds": len(runs),
    }
    if arguments.test:
        found["test_score"] = finetuner.test(finetuner.baseline)["score"]
        found["test_score_finetuned"] = statistics.mean(run.test["score"] for run in runs)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
