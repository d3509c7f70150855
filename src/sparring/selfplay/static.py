"""A curriculum from opponents that nobody trains: the static arms that a trained Attacker must beat.

Their edits pass the same gate and are put to the same frozen Defender as the Attacker's. Of one that widens the canvas the gate sees the part that was
the picture. A picture that a rival gave back as it was is no edit, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL.Image import Image

from sparring.attackers.rivals import Rival, load_rival
from sparring.data.records import Answer, Edit, Verdict, VisualQuestion
from sparring.defenders.play import ask
from sparring.judging.judge import AttackJudge
from sparring.selfplay.game import Game, pictures_of
from sparring.selfplay.stages import Stage
from sparring.selfplay.turns import defender_after, make_judge, shares


def static_edits(game: Game, stage: Stage, number: int, questions: Sequence[VisualQuestion], *, title: str) -> list[Verdict]:
    """One edit of every question by the recipe's rivals in turns, judged against the Defender after round `number`; all goes into the ledger."""
    rivals = [load_rival(spec) for spec in game.recipe.selfplay.curriculum.rivals]
    name, verdicts, batch = defender_after(number), list[Verdict](), game.recipe.evaluation.batch
    judge = make_judge(game, name)
    with game.screen.stage(title, len(questions)) as bar:
        for start in range(0, len(questions), batch):
            part = questions[start : start + batch]
            cleans = pictures_of(part)
            edits = _in_turns(rivals, part, cleans, start, game.seed(stage.name))
            changed = [place for place, edit in enumerate(edits) if edit.image.tobytes() != cleans[place].convert("RGB").tobytes()]
            part, cleans, edits = [part[i] for i in changed], [cleans[i] for i in changed], [edits[i] for i in changed]
            with game.league.defenders_turn():
                judged, answers = _judge(game, judge, part, cleans, edits)
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
    game: Game, judge: AttackJudge, questions: Sequence[VisualQuestion], cleans: Sequence[Image], edits: Sequence[Edit]
) -> tuple[list[Verdict], list[Answer]]:
    """Verdicts, and the Defender's greedy answers about what passed the gate."""
    seen = [[edit.image.crop((0, 0, *clean.size))] for edit, clean in zip(edits, cleans, strict=True)]
    gates = [gate for (gate,) in judge.gate(questions, cleans, seen)]
    passed = [place for place, gate in enumerate(gates) if gate.accepted]
    answers = ask(judge.defender, [questions[i] for i in passed], [edits[i].image for i in passed], game.recipe.defender) if passed else []
    wrong = {place for place, answer in zip(passed, answers, strict=True) if not answer.right}
    verdicts = [
        Verdict(question.id, gate.integrity, gate.intact, gate.duplicate, float(place in wrong), 0.0, notes=gate.notes)
        for place, (question, gate) in enumerate(zip(questions, gates, strict=True))
    ]
    return verdicts, answers
