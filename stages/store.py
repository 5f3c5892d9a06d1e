"""The store of measurements: what is in it, whether it is whole, and what could go.

Not a stage; nothing else deletes a measurement.

    python stages/store.py                    list (`make store`)
    python stages/store.py verify             read every record (`make store-verify`)
    python stages/store.py prune [--remove]   what params.yaml cannot reuse (`make store-prune`)
"""

import json
import logging
import math
import sys
from collections import Counter

import pandas as pd

from seernet.config import load
from seernet.errors import ArtifactError, ConfigError
from seernet.store import Row, Store, default_root

logger = logging.getLogger("store")
PATH = default_root() / "evaluations.sqlite"


def main() -> None:
    """Do what the arguments say."""
    arguments = sys.argv[1:]
    if not PATH.exists():
        raise ArtifactError(
            f"nothing was measured yet: there is no {PATH}; run `dvc repro sample`."
        )
    store = Store(PATH)
    match arguments:
        case []:
            sys.stdout.write(f"{listing(store)}\n")
        case ["verify"]:
            verify(store)
        case ["prune"] | ["prune", "--remove"]:
            prune(store, len(arguments) == 2)
        case _:
            raise ConfigError(f"usage: {sys.argv[0]} [verify | prune [--remove]], got {arguments}.")


def listing(store: Store) -> str:
    """A table of contexts, oldest first: how many records, of which kind, made when (UTC)."""
    groups: dict[str | None, list[Row]] = {}
    for row in store.rows():
        groups.setdefault(row.context, []).append(row)
    described = store.contexts()
    lines = []
    for context, rows in groups.items():
        known = described.get(context or "", {})
        kinds = Counter(kind(row.text) for row in rows)
        made = [row.made[:10] for row in rows if row.made]
        line: dict[str, object] = {"context": context[:12] if context else "unknown"}
        line |= {key: known.get(key, "") for key in ("data", "model", "seed", "device")}
        line |= {"steps": known.get("evaluation", {}).get("steps", "")}
        line |= {name: kinds[name] for name in ("scores", "failed", "places", "damaged")}
        lines.append(line | {"first": min(made, default=""), "last": max(made, default="")})
    lines.sort(key=lambda line: str(line["first"]))
    table = pd.DataFrame(lines).to_string(index=False)
    return f"{PATH}, {PATH.stat().st_size} bytes\n{table}"


def kind(text: str) -> str:
    """What a record is: a score, a failed measurement, a single place's divergence, or damaged."""
    try:
        record = json.loads(text)
        if "value" in record:
            return "places" if math.isfinite(record["value"]) else "damaged"
        if record["score"] is None:
            return "failed" if record["error"] else "damaged"
        scores = [record["score"], record.get("soft_score") or 0.0]
        return "scores" if all(0.0 <= score <= 1.0 for score in scores) else "damaged"
    except (ValueError, TypeError, KeyError):
        return "damaged"


def verify(store: Store) -> None:
    """Read the whole file and every record; what is wrong is logged, and an error."""
    rows = store.rows()
    wrong = store.damage()
    wrong += [f"{row.key}: {row.text:.80}" for row in rows if kind(row.text) == "damaged"]
    for line in wrong:
        logger.error("%s", line)
    if wrong:
        found = f"{len(wrong)} findings in {PATH}, of {len(rows)} records"
        raise ArtifactError(f"{found}; restore it from a copy, or move it away and measure again.")
    logger.info("%d records in %s, all whole", len(rows), PATH)


def prune(store: Store, remove: bool) -> None:
    """Say how many records params.yaml cannot reuse; remove them if told to.

    Records without a context stay: nobody knows what they are of.
    """
    # Only here: they load torch.
    from seernet.device import resolve
    from seernet.evaluation import EvaluationSpec, context_of

    current = context_of(EvaluationSpec.of(resolve(load()))).digest
    counts = Counter(row.context for row in store.rows())
    kept, unknown = counts.pop(current, 0), counts.pop(None, 0)
    stale = [context for context in counts if context]
    logger.info(
        "params.yaml can reuse %d records; %d are of unknown origin, and stay; it cannot reuse %d, "
        "of %d other contexts (data, network, settings or code)",
        *(kept, unknown, counts.total(), len(stale)),
    )
    if not remove:
        logger.info("nothing was removed; `make store-prune REMOVE=1` removes these for good")
        return
    with store.exclusive():
        logger.info("%d records removed", store.remove(stale))


if __name__ == "__main__":
    from seernet.stage import run

    run(main)
