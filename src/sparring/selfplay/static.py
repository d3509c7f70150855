"""A curriculum from opponents that nobody trains: the static arms that a trained Attacker must beat.

Their edits pass the same checks and are put to the same frozen Defender as the Attacker's. A picture that a rival gave back as it was is no edit, and is
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL.Image import Image

from sparring.attackers.rivals import Rival, load_rival
from sparring.data.records import Answer, Edit, Verdict, VisualQuestion
from sparring.defenders.play import ask
from sparring.judging.vet import vet
from sparring.selfplay.game import Game, pictures_of
from sparring.selfplay.stages import Stage
from sparring.selfplay.turns import defender_after, shares


def static_edits(game: Game, stage: Stage, number: int, questions: Sequence[VisualQuestion], *, title: str) -> list[Verdict]:
    """One edit of every question by the recipe's rivals in turns, judged against the Defender after round `number`; all goes into the ledger."""
    rivals = [load_rival(spec) for spec in game.recipe.selfplay.curriculum.rivals]
    name, verdicts, batch = defender_after(number), list[Verdict](), game.recipe.evaluation.batch
    with game.screen.stage(title, len(questions)) as bar:
        for start in range(0, len(questions), batch):
            part = questions[start : start + batch]
            cleans = pictures_of(part)
            edits = _in_turns(rivals, part, cleans, start, game.seed(stage.name))
            with game.league.defenders_turn():
                edits, judged, answers = _judge(game, name, part, cleans, edits)
            game.ledger.record_edits(stage.name, 0, edits)
            game.ledger.record_answers(stage.name, 0, [replace(answer, defender=name) for answer in answers])
            game.ledger.record_verdicts(stage.name, 0, judged)
            verdicts += judged
            bar.advance(min(batch, len(questions) - start), shares(verdicts))
    return verdicts


def _in_turns(rivals: Sequence[Rival], questions: Sequence[VisualQuestion], cleans: Sequence[Image], first: int, seed: int) -> list[Edit]:
    """Question `first + i` is edited by rival (first + i) mod the number of rivals."""
    edits: dict[int, Edit] = {}
    for turn, rival in enumerate(rivals):
        own = [place for place in range(len(questions)) if (first + place) % len(rivals) == turn]
        edits |= zip(own, rival.edit([questions[i] for i in own], [cleans[i] for i in own], seed), strict=True)
    return [edits[place] for place in range(len(questions))]


def _judge(
    game: Game, defender: str, questions: Sequence[VisualQuestion], cleans: Sequence[Image], edits: Sequence[Edit]
) -> tuple[list[Edit], list[Verdict], list[Answer]]:
    """The edits that changed something, their verdicts, and the Defender's greedy answers about those that passed the checks."""
    settings, duplicates, device = game.recipe.judge, game.league.duplicate_check(), game.league.device
    verdicts = vet(questions, cleans, edits, settings=settings, duplicates=duplicates, device=device)
    passed = [place for place, verdict in enumerate(verdicts) if verdict.accepted]
    asked, pictures = [questions[i] for i in passed], [edits[i].image for i in passed]
    answers = ask(game.league.defender(defender), asked, pictures, game.recipe.defender) if passed else []
    wrong = {answer.question_id for answer in answers if not answer.right}
    made = [place for place, verdict in enumerate(verdicts) if not verdict.unchanged]
    judged = [replace(verdicts[i], efficacy=float(questions[i].id in wrong)) for i in made]
    return [edits[i] for i in made], judged, answers
