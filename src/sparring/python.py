"""What `import sparring` offers beside names of the inner modules: players and a judge from a recipe's
settings alone, and a ledger as tables.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NoReturn

import pandas as pd
from PIL.Image import Image

from sparring.attackers.rivals import Rival
from sparring.config import AttackerSettings, DefenderSettings, JudgeSettings
from sparring.data.errors import RecipeError, RunError
from sparring.data.records import Edit, Verdict, VisualQuestion
from sparring.engine.device import begin_computing
from sparring.judging.validity import load_duplicate_check
from sparring.judging.vet import vet
from sparring.models.players import load_asked_defender
from sparring.models.vlms.base import VLM
from sparring.probe import attackers
from sparring.report.run import open_ledger

Judge = Callable[[Sequence[VisualQuestion], Sequence[Image], Sequence[Edit]], list[Verdict]]
CACHE = Path("answers.sqlite")
TRUTHS = ("right", "intact", "duplicate", "accepted", "label_valid")
STRUCTURED = ("options", "targets", "notes", "result")
FILES = ("image", "picture")


def load_attacker(settings: AttackerSettings, device: str = "auto") -> Rival:
    """The Attacker that `settings.model` names: an editor's folder or hub id, `EDITOR+LORA`, or a rival that
    nobody trains, such as `paste:add`.

    Its `edit(questions, pictures, seed)` makes one `Edit` a question. Errors: ModelError where it cannot be
    loaded; RecipeError for an unknown rival, or one that takes a Defender's gradients (`sparring probe` has
    those).
    """

    def no_defender() -> NoReturn:
        raise RecipeError(
            f'attacker "{settings.model}" takes the gradients of a Defender, and there is none here. Use '
            "`sparring probe`."
        )

    return attackers.load_attacker(settings, begin_computing(device, None), no_defender)


def load_defender(settings: DefenderSettings, device: str = "auto", cache: Path = CACHE) -> VLM:
    """The Defender that `settings.model` names: a folder, a hub id, or an endpoint, whose answers are kept in
    the SQLite file `cache`. `sparring.ask` asks it. Raises ModelError where it cannot be loaded.
    """
    return load_asked_defender(settings.model, settings, begin_computing(device, None), cache)


def load_judge(settings: JudgeSettings, device: str = "auto", cache: Path = CACHE) -> Judge:
    """The checks of a recipe's `judge` as a function: judge(questions, clean pictures, edits) -> one
    `Verdict` an edit, one edit a question. Whom an edit fools it does not say: ask a Defender.

    Raises ModelError where `settings.model`, which counts objects, cannot be loaded.
    """
    chosen = begin_computing(device, None)
    duplicates = load_duplicate_check(settings, chosen, cache)
    return partial(vet, settings=settings, duplicates=duplicates, device=chosen)


def read_ledger(folder: str | Path, table: str) -> pd.DataFrame:
    """A table of the ledger in a run's or a probe's folder, also of a run that still goes on.

    table: "questions", "edits", "answers", "verdicts", "updates" (a column a metric), "stages" or "times"
    (`sparring.engine.ledger` says what they hold). Pictures are named by their whole paths. Raises RunError
    where there is no ledger or no such table.
    """
    path = Path(folder).resolve() / "ledger.sqlite"
    if not path.is_file():
        raise RunError(f"{folder} holds no ledger.sqlite. Name the folder of a run or of a probe.")
    try:
        with closing(open_ledger(path)) as db:
            known = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            if table not in known:
                raise RunError(f'{path} has no table "{table}", but {", ".join(known)}.')
            rows = pd.read_sql_query(f"SELECT * FROM {table}", db)
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise RunError(f"{path} cannot be read as a ledger: {error}") from error
    for name in rows.columns.intersection(STRUCTURED):
        rows[name] = rows[name].map(json.loads, na_action="ignore")  # a stage under way has no result
    for name in rows.columns.intersection(FILES):
        rows[name] = rows[name].map(lambda value: str(path.parent / value))
    for name in rows.columns.intersection(TRUTHS):
        rows[name] = rows[name].astype("boolean")
    if "metrics" in rows:
        metrics = [json.loads(text) for text in rows.pop("metrics")]
        rows = rows.join(pd.DataFrame(metrics, index=rows.index))
    return rows
