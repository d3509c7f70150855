"""What frozen players do in their turns: answer clean pictures, and edit pictures that are then judged.
Everything goes into the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from PIL.Image import Image

from sparring.asking.questions import answered, ask_each
from sparring.attackers.crops import crops_of
from sparring.attackers.rollout import deterministic_edits
from sparring.data.errors import ModelError, RefusedError, TrainingError
from sparring.data.images import pictures_of
from sparring.data.records import Answer, Edit, Verdict, VisualQuestion
from sparring.data.words import plural
from sparring.engine.ledger import Ledger
from sparring.engine.ranks import Ranks
from sparring.engine.stages import Stage
from sparring.judging.hearing import Heard
from sparring.judging.judge import AttackJudge, Judgement
from sparring.judging.rewards import PREFIX
from sparring.measures.statistics import rate
from sparring.seeds import shuffled
from sparring.selfplay.game import Game, Table, at_the_table

GUESSING_FROM = 100
"""Answers from which it is said that a Defender only guesses: fewer cannot tell much."""
SeedOf = Callable[[VisualQuestion, int], int]
"""The seed of an edit, from its question and its number among the edits of that question."""


def defender_after(number: int) -> str:
    """The name of the Defender after a round; 0 is before the first."""
    return f"round{number}" if number else "base"


def attacker_after(number: int) -> str:
    """The name of the Attacker after a round; 0 is before the first."""
    return f"round{number}" if number else "bootstrap"


@dataclass(frozen=True)
class Asked:
    """Questions that a Defender is asked greedily about pictures."""

    defender: str
    questions: Sequence[VisualQuestion]
    images: Sequence[Image]
    seed: int


def answers_to(table: Table, asked: Asked) -> list[Answer | RefusedError]:
    """The answers, in one batch, with the error in the place of a question that the Defender refuses."""
    with table.league.defenders_turn():
        found = ask_each(
            table.league.defender(asked.defender),
            asked.questions,
            asked.images,
            table.recipe.defender,
            temperature=0.0,
            seed=asked.seed,
        )
    return [replace(one, defender=asked.defender) if isinstance(one, Answer) else one for one in found]


def right_when_clean(game: Game, number: int) -> list[VisualQuestion]:
    """Training questions that the Defender after round `number` gets right on the clean picture, in a
    shuffled order of its own.

    Asked once for all the stages that need them, and no more than these need; the answers are in the ledger
    as "round<number>/clean".
    """
    recipe, stage = game.recipe, game.stage(f"round{number}/clean")
    by_id = {question.id: question for question in game.train}
    if not stage.done:
        stage.begin()
        wanted = (
            recipe.attacker.steps * recipe.attacker.questions_per_step + recipe.selfplay.curriculum.questions
        )
        wanted = max(wanted, recipe.bootstrap.questions) if number == 0 else wanted
        order, right, asked = shuffled(game.train, recipe.seed, stage.name), list[str](), 0
        lost = list[str]()
        name, batch = defender_after(number), recipe.evaluation.batch
        with (
            game.screen.stage(f"round {number}: clean answers", min(wanted, len(order))) as bar,
            game.crew("play", at_the_table, defenders=[name]) as crew,
        ):
            parts = [order[start : start + batch] for start in range(0, len(order), batch)]
            found = crew.map(
                answers_to, (Asked(name, part, pictures_of(part), game.seed(stage.name)) for part in parts)
            )
            while asked < len(order) and len(right) < wanted:
                part = parts[asked // batch]
                answers = answered(part, next(found), lambda text: game.screen.warn(f"{stage.name}: {text}"))
                game.ledger.record_answers(stage.name, 0, answers)
                asked += len(part)
                lost += sorted(
                    {question.id for question in part} - {answer.question_id for answer in answers}
                )
                right += [answer.question_id for answer in answers if answer.right]
                bar.advance(
                    sum(answer.right for answer in answers),
                    {"accuracy": len(right) / max(1, asked - len(lost))},
                )
        if lost and len(lost) == asked:
            raise ModelError(
                f"{defender_after(number)}: the Defender refuses all {plural(asked, 'question')}. See the "
                f"warnings above."
            )
        stage.finish({"asked": asked, "right": right} | ({"left_out": lost} if lost else {}))
    return [by_id[name] for name in stage.result["right"]]


def require_skill(game: Game) -> None:
    """Raise TrainingError where the base Defender only guesses: there would be nothing to attack, and
    nothing to stand firm in."""
    if not game.recipe.selfplay.require_skill:
        return
    right_when_clean(game, 0)
    answers = game.ledger.answers("round0/clean", defender_after(0))
    options = {question.id: len(question.options) for question in game.train}
    accuracy = rate([answer.right for answer in answers])
    guessing = sum(1 / options[answer.question_id] for answer in answers) / max(1, len(answers))
    if len(answers) < GUESSING_FROM or accuracy.low > guessing:
        return
    unread = sum(answer.choice is None for answer in answers)
    raise TrainingError(
        f"the Defender {game.recipe.defender.model} answers {accuracy.value:.1%} of {len(answers)} "
        f"questions right about clean pictures (95 % interval {accuracy.low:.1%} to {accuracy.high:.1%}), "
        f"where guessing gives {guessing:.1%}"
        + (f"; {unread} of its replies name no option" if unread else "")
        + ". Nothing can be learned from that, so nothing was trained. Bundled players know the bundled "
        "world only: name a Defender that can answer such questions, or see to defender.prompt and "
        "defender.max_new_tokens. To play all the same, begin another run with --set "
        "selfplay.require_skill=false."
    )


@dataclass(frozen=True)
class Faced:
    """Edits that a Defender has faced, with their numbers among the edits of their question, and what became
    of them. verdicts: of every question, none where it is left out (see `AttackJudge`).
    """

    edits: list[Edit]
    samples: list[int]
    judgements: list[list[Judgement]]
    judged_samples: list[int]

    @property
    def verdicts(self) -> list[list[Verdict]]:
        return [[judgement.verdict for judgement in own] for own in self.judgements]

    def record(self, ledger: Ledger, stage: str, step: int = 0) -> None:
        """Write edits, answers and verdicts."""
        ledger.record_edits(stage, step, self.edits, self.samples)
        flat = list(zip(chain.from_iterable(self.judgements), self.judged_samples, strict=True))
        replies = [(a, s, t) for judged, s in flat for t, a in enumerate(judged.answers)]
        ledger.record_answers(
            stage, step, [a for a, _, _ in replies], [s for _, s, _ in replies], [t for _, _, t in replies]
        )
        ledger.record_verdicts(stage, step, [judged.verdict for judged, _ in flat], self.judged_samples)


class FrozenOpponent:
    """A frozen Defender with the judge of attacks on it, for one stage."""

    def __init__(
        self, table: Table, stage: str, number: int, clean: Mapping[str, Answer], ranks: Ranks | None = None
    ) -> None:
        """number: of the round after which the Defender is as it is. clean: what it answers to clean
        pictures, by question. ranks: see `AttackJudge`.
        """
        self.table, self.stage, self.name, self._clean = table, stage, defender_after(number), clean
        league, recipe = table.league, table.recipe
        self.judge = AttackJudge(
            league.defender(self.name),
            league.duplicate_check(),
            recipe.judge,
            recipe.defender,
            tell=table.tell,
            ranks=ranks,
        )

    def hear(
        self,
        questions: Sequence[VisualQuestion],
        images: Sequence[Image],
        edits: Sequence[Sequence[Image]],
        step: int = 0,
    ) -> list[Heard]:
        """Ask the Defender about edits[q][s] of every question."""
        for question, image in zip(questions, images, strict=True):
            if question.id in self._clean:
                self.judge.remember(question, image, self._clean[question.id])
        with self.table.league.defenders_turn():
            return self.judge.hear(questions, images, edits, seed=self.table.seed(self.stage, step, "trials"))

    def face(
        self,
        attacker: str,
        questions: Sequence[VisualQuestion],
        images: Sequence[Image],
        edits: Sequence[Sequence[Image]],
        heard: Sequence[Heard],
        *,
        seed_of: SeedOf,
    ) -> Faced:
        """Judge edits that the Defender has been asked about."""
        keys = [(q, s) for q, own in enumerate(edits) for s in range(len(own))]
        made = [
            Edit(
                questions[q].id,
                attacker,
                self.table.instruction(questions[q]),
                seed_of(questions[q], sample),
                edits[q][sample],
            )
            for q, sample in keys
        ]
        judgements = self.judge.conclude(questions, images, edits, heard)
        named = [
            [
                replace(one, answers=tuple(replace(answer, defender=self.name) for answer in one.answers))
                for one in own
            ]
            for own in judgements
        ]
        return Faced(made, [s for _, s in keys], named, [s for q, s in keys if judgements[q]])


def answers_when_clean(game: Game, number: int) -> dict[str, Answer]:
    """What the Defender after a round answers to clean pictures, by question, as far as it was asked."""
    answers = game.ledger.answers(f"round{number}/clean", defender_after(number))
    return {answer.question_id: answer for answer in answers}


def frozen_edits(
    table: Table,
    attacker: str,
    questions: Sequence[VisualQuestion],
    images: Sequence[Image],
    seeds: Sequence[int],
) -> list[Image]:
    """One edit a question by the deterministic sampler: the edits that count."""
    settings, editor = table.recipe.attacker, table.league.attacker(attacker)
    with table.league.attackers_turn():
        return deterministic_edits(
            editor,
            images,
            [table.instruction(question) for question in questions],
            seeds,
            steps=settings.evaluation_steps,
            guidance=settings.guidance_scale,
            batch=settings.micro_batch,
            crops=crops_of(questions, images, settings.crop, editor.multiple),
        )


class FrozenPair:
    """A frozen Attacker and the Defender that it faces, for one stage."""

    def __init__(
        self, table: Table, stage: str, attacker: str, number: int, clean: Mapping[str, Answer]
    ) -> None:
        self.table, self.stage, self.attacker = table, stage, attacker
        self.opponent = FrozenOpponent(table, stage, number, clean)

    def seed_of(self, question: VisualQuestion, sample: int) -> int:
        """The seed of an edit."""
        return self.table.seed(self.stage, question.id, sample)

    def play(self, asked: tuple[Sequence[VisualQuestion], Sequence[Image]]) -> Faced:
        """One edit of every question, judged."""
        questions, images = asked
        seeds = [self.seed_of(question, 0) for question in questions]
        edits = [[edit] for edit in frozen_edits(self.table, self.attacker, questions, images, seeds)]
        heard = self.opponent.hear(questions, images, edits)
        return self.opponent.face(self.attacker, questions, images, edits, heard, seed_of=self.seed_of)


def edit_and_judge(
    game: Game, stage: Stage, attacker: str, number: int, questions: Sequence[VisualQuestion], *, title: str
) -> list[Verdict]:
    """Edits by a frozen Attacker, one of every question, judged against the Defender after round `number`."""
    verdicts, batch = list[Verdict](), game.recipe.evaluation.batch
    parts = [slice(start, start + batch) for start in range(0, len(questions), batch)]
    with (
        game.screen.stage(title, len(questions)) as bar,
        game.crew(
            "play",
            FrozenPair,
            stage.name,
            attacker,
            number,
            answers_when_clean(game, number),
            attackers=[attacker],
            defenders=[defender_after(number)],
        ) as crew,
    ):
        asked = ((questions[part], pictures_of(questions[part])) for part in parts)
        for part, faced in zip(parts, crew.map(FrozenPair.play, asked), strict=True):
            faced.record(game.ledger, stage.name)
            verdicts += chain.from_iterable(faced.verdicts)
            bar.advance(len(questions[part]), shares(verdicts))
    return verdicts


def shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """What became of edits: shares that are intact, that are accepted, and that are accepted and fooled the
    Defender at least once.
    """
    n = max(1, len(verdicts))
    fooled = sum(v.accepted and v.efficacy > 0 for v in verdicts)
    return {
        "intact": sum(v.intact for v in verdicts) / n,
        "accepted": sum(v.accepted for v in verdicts) / n,
        "fooled": fooled / n,
    }


def reward_means(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The mean over edits of every part of the reward that is paid for; together they are the mean reward."""
    names = dict.fromkeys(name for verdict in verdicts for name in verdict.notes if name.startswith(PREFIX))
    return {name: sum(verdict.notes.get(name, 0.0) for verdict in verdicts) / len(verdicts) for name in names}
