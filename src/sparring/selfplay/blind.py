"""Would a Defender have to look? Before it trains it answers some questions beside a grey picture.

Where it is as often right without the picture, the questions give their answers away, and what training pays
for can be had without looking.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from PIL import Image

from sparring.data.errors import RefusedError
from sparring.data.images import pictures_of
from sparring.data.records import Answer, VisualQuestion
from sparring.measures.statistics import mcnemar_exact, rate
from sparring.seeds import shuffled
from sparring.selfplay.game import Game, at_the_table
from sparring.selfplay.turns import Asked, answers_to, defender_after, right_when_clean

GREY = (128, 128, 128)
QUESTIONS = 128
FEWEST = 32
"""Questions from which anything is said: fewer cannot tell much."""


def greys(questions: Sequence[VisualQuestion]) -> list[Image.Image]:
    """A grey picture of the size of each question's own."""
    return [Image.new("RGB", picture.size, GREY) for picture in pictures_of(questions)]


def blindness(found: Sequence[Answer | RefusedError], seen: Sequence[bool]) -> str | None:
    """A warning where greedy answers beside a grey picture are as often right as those beside the picture;
    None otherwise. found: the former; seen: whether the latter are right.

    As often: not less often by an exact McNemar test at 0.05, one-sided.
    """
    pairs = [(own.right, right) for own, right in zip(found, seen, strict=True) if isinstance(own, Answer)]
    if len(pairs) < FEWEST:
        return None
    blind, sighted = (rate([pair[place] for pair in pairs]) for place in (0, 1))
    looking_helps = (sighted.value or 0.0) > (blind.value or 0.0)
    if looking_helps and mcnemar_exact(*zip(*pairs, strict=True)) / 2 < 0.05:
        return None
    return (
        f"of {blind.n} training questions the Defender answers {blind.value:.1%} right beside a grey "
        f"picture, and {sighted.value:.1%} beside the picture itself: training would not need to look. See "
        "to the questions: their words, or which option is right most often, give the answers away."
    )


def blind_check(game: Game, number: int) -> list[str]:
    """The warning, if any, of round `number`, whose Defender is about to train. Its answers to clean pictures
    are in the ledger; nothing random is drawn.
    """
    right_when_clean(game, number - 1)
    stage, name = f"round{number - 1}/clean", defender_after(number - 1)
    answers = game.ledger.answers(stage, name)
    chosen = shuffled(answers, game.recipe.seed, stage, "blind")[:QUESTIONS]
    by_id = {question.id: question for question in game.train}
    questions = [by_id[answer.question_id] for answer in chosen]
    batch = game.recipe.evaluation.batch
    parts = [questions[start : start + batch] for start in range(0, len(questions), batch)]
    with game.crew("play", at_the_table, defenders=[name], workers=1) as crew:  # too few to share out
        asked = (Asked(name, part, greys(part), game.seed(stage)) for part in parts)
        found = list(chain.from_iterable(crew.map(answers_to, asked)))
    warning = blindness(found, [answer.right for answer in chosen])
    if warning is not None:
        game.screen.warn(f"round {number}: {warning}")
    return [] if warning is None else [warning]
