"""Stage `prepare`: read or fetch the data set, check it, fix train, search and test splits."""

from seernet import artifacts
from seernet.config import load
from seernet.data import prepare
from seernet.stage import run


def main() -> None:
    """Write `data/prepared/`."""
    params = load()
    sections = (params.pretrain, params.finetune, params.sample.evaluation)
    largest = max(section.batch_size for section in sections)
    prepare(params.data, params.seed, artifacts.PREPARED, largest)


if __name__ == "__main__":
    run(main)
