"""What a person reads of a run: the trade-off table, the figures, the notebooks and the page.

Everything here reads artifacts and computes nothing that another stage could have written, so it
imports neither torch nor the search. `collect` is the only part that the `collect` stage needs;
notebooks and page live in `seernet.report.execute` and `seernet.report.page`.
"""

from seernet.report.artifacts import Artifacts
from seernet.report.tables import collect

__all__ = ["Artifacts", "collect"]
