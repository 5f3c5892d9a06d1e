"""Score the recorded networks again, and hold them against the recorded tables.

For every `docs/results/NAME/` with networks: its data set is prepared as its parameters say, each
network is read from its packed file, scored on the test split, and compared with `tradeoff.csv`. A
record whose data are not here is skipped, with the reason.

    python benchmarks/verify_results.py            # or: make verify-results
    python benchmarks/verify_results.py cifar10-resnet20 --data data/raw/cifar10
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import torch
from _shared import ROOT, markdown

from seernet.config import load as load_params
from seernet.data import Batch, Dataset, prepare
from seernet.device import resolve_device
from seernet.errors import DataError
from seernet.export import load
from seernet.progress import Bar, bar
from seernet.training import Exact, make_task, score, scored

RECORDS = ROOT / "docs" / "results"
TOLERANCE = 0.0005  # of the score: older records were scored in float32, norms not folded


def verify(record: Path, path: str | None, device: str) -> Iterator[list[str]]:
    """One row a network: record, budget, seed, recorded score, score found, verdict.

    Raises:
        DataError: If the data set is not there.
    """
    params = load_params(record / "params.yaml")
    data = params.data.model_copy(update={"path": path} if path else {})
    table = pd.read_csv(record / "tradeoff.csv", dtype={"budget": str}, keep_default_na=False)
    table = table[table["method"] == "seernet"].set_index(["budget", "seed"])
    with tempfile.TemporaryDirectory(prefix="seernet-verify-") as folder:
        prepared = Path(folder) / "prepared"
        prepare(data, params.seed, prepared, 1)
        dataset = Dataset.open(prepared, torch.device(device), params.data.workers)
        task = make_task(dataset.info)
        places = sorted((record / "networks").glob("*/seed-*"))
        with bar(len(places) * dataset.info.counts["test"], record.name, "image") as shown:
            for place in places:
                budget, seed = place.parent.name, int(place.name.removeprefix("seed-"))
                network = load(place, trust_code=True)
                images = counted(scored(dataset, "test", exact=True), shown)
                found = score(Exact(network.to(device)), images, task)["score"]
                expected = float(table.loc[(budget, seed), "test_score"])
                verdict = "same" if abs(found - expected) <= TOLERANCE else "DIFFERS"
                yield [record.name, budget, str(seed), f"{expected:.4f}", f"{found:.4f}", verdict]


def counted(batches: Iterable[Batch], shown: Bar) -> Iterator[Batch]:
    """The same batches; a bar tells of the images of those that were done with."""
    for batch in batches:
        yield batch
        shown.update(len(batch[0]))


def main() -> None:
    """Verify the named records, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="records (default: all)")
    parser.add_argument("--data", help="folder of the data set, in place of the recorded one")
    arguments = parser.parse_args()
    known = sorted(path.parent.name for path in RECORDS.glob("*/networks"))
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"no record {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    rows: list[list[str]] = []
    for name in arguments.names or known:
        try:
            rows += verify(RECORDS / name, arguments.data, resolve_device("auto"))
        except DataError as error:
            print(f"{name}: skipped: {error}", file=sys.stderr)
    if rows:
        print(markdown(["record", "budget", "seed", "recorded", "found", "verdict"], rows))
    different = sum(row[-1] != "same" for row in rows)
    print(f"{len(rows) - different} networks score as recorded, {different} do not")
    if different or not rows:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
