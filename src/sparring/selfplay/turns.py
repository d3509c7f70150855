"""What frozen players do in their turns: answer clean pictures, and edit pictures that are then judged.
Everything goes into the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL.Image import Image

from sparring.asking.questions import answered, ask_each
from sparring.attackers.crops import crops_of
from sparring.attackers.rollout import deterministic_edits
from sparring.data.errors import ModelError, TrainingError
from sparring.data.images import pictures_of
from sparring.data.records import Answer, Edit, Verdict, VisualQuestion
from sparring.engine.stages import Stage
from sparring.judging.judge import AttackJudge
from sparring.judging.rewards import PREFIX
from sparring.measures.statistics import rate
from sparring.seeds import shuffled
from sparring.selfplay.game import Game

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


def clean_answers(game: Game, vlm_name: str, stage: str, questions: Sequence[VisualQuestion]) -> list[Answer]:
    """A Defender's greedy answers to clean pictures, in one batch, recorded; none of those that it
    refuses.
    """
    settings, vlm = game.recipe.defender, game.league.defender(vlm_name)
    with game.league.defenders_turn():
        found = ask_each(
            vlm, questions, pictures_of(questions), settings, temperature=0.0, seed=game.seed(stage)
        )
    answers = answered(questions, found, lambda text: game.screen.warn(f"{stage}: {text}"))
    answers = [replace(answer, defender=vlm_name) for answer in answers]
    game.ledger.record_answers(stage, 0, answers)
    return answers


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
        with game.screen.stage(f"round {number}: clean answers", min(wanted, len(order))) as bar:
            while asked < len(order) and len(right) < wanted:
                part = order[asked : asked + recipe.evaluation.batch]
                answers = clean_answers(game, defender_after(number), stage.name, part)
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
                f"{defender_after(number)}: the Defender refuses all {asked} questions. See the warnings "
                f"above."
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
        f"questions right about clean "
        f"pictures (95 % interval {accuracy.low:.1%} to {accuracy.high:.1%}), where guessing gives "
        f"{guessing:.1%}"
        + (f"; {unread} of its replies name no option" if unread else "")
        + ". Nothing can be learned from that, so nothing was trained. Bundled players know the bundled "
        "world only: name a "
        "Defender that can answer such questions, or see to defender.prompt and "
        "defender.max_new_tokens. To play all the "
        "same, begin another run with --set selfplay.require_skill=false."
    )


class FrozenOpponent:
    """A frozen Defender with the judge of attacks on it, for one stage. What it answers to clean pictures is
    taken from the ledger.
    """

    def __init__(self, game: Game, stage: Stage, number: int) -> None:
        self.game, self.stage = game, stage
        self.name = defender_after(number)
        self.judge = make_judge(game, self.name)
        self._clean = {
            answer.question_id: answer for answer in game.ledger.answers(f"round{number}/clean", self.name)
        }

    def face(
        self,
        attacker: str,
        questions: Sequence[VisualQuestion],
        images: Sequence[Image],
        edits: Sequence[Sequence[Image]],
        *,
        seed_of: SeedOf,
        step: int = 0,
        first_samples: Sequence[int] | None = None,
    ) -> list[list[Verdict]]:
        """Judge edits[q][s] of every question and record edits, answers and verdicts; numbers of samples
        start at `first_samples[q]`. No verdicts on the edits of a question that is left out: see
        `AttackJudge`.
        """
        name, ledger = self.stage.name, self.game.ledger
        firsts = first_samples or [0] * len(questions)
        keys = [(q, first + s) for q, first in enumerate(firsts) for s in range(len(edits[q]))]
        samples = [sample for _, sample in keys]
        made = [
            Edit(
                questions[q].id,
                attacker,
                self.game.instruction(questions[q]),
                seed_of(questions[q], sample),
                edits[q][sample - firsts[q]],
            )
            for q, sample in keys
        ]
        ledger.record_edits(name, step, made, samples)
        for question, image in zip(questions, images, strict=True):
            if question.id in self._clean:
                self.judge.remember(question, image, self._clean[question.id])
        with self.game.league.defenders_turn():
            judgements = self.judge.examine(
                questions, images, edits, seed=self.game.seed(name, step, "trials")
            )
        samples = [sample for q, sample in keys if judgements[q]]
        flat = [judgement for own in judgements for judgement in own]
        replies = [
            (replace(a, defender=self.name), s, t)
            for judged, s in zip(flat, samples, strict=True)
            for t, a in enumerate(judged.answers)
        ]
        ledger.record_answers(
            name, step, [a for a, _, _ in replies], [s for _, s, _ in replies], [t for _, _, t in replies]
        )
        ledger.record_verdicts(name, step, [judged.verdict for judged in flat], samples)
        return [[judged.verdict for judged in own] for own in judgements]


def make_judge(game: Game, defender: str) -> AttackJudge:
    """The judge of attacks on a Defender of that name."""
    league, recipe = game.league, game.recipe
    return AttackJudge(
        league.defender(defender),
        league.duplicate_check(),
        recipe.judge,
        recipe.defender,
        tell=game.screen.warn,
    )


def frozen_edits(
    game: Game,
    attacker: str,
    questions: Sequence[VisualQuestion],
    images: Sequence[Image],
    seeds: Sequence[int],
) -> list[Image]:
    """One edit a question by the deterministic sampler: the edits that count."""
    settings, editor = game.recipe.attacker, game.league.attacker(attacker)
    return deterministic_edits(
        editor,
        images,
        [game.instruction(question) for question in questions],
        seeds,
        steps=settings.evaluation_steps,
        guidance=settings.guidance_scale,
        batch=settings.micro_batch,
        crops=crops_of(questions, images, settings.crop, editor.multiple),
    )


def edit_and_judge(
    game: Game,
    stage: Stage,
    attacker: str,
    number: int,
    questions: Sequence[VisualQuestion],
    samples: Sequence[int],
    *,
    title: str,
) -> list[Verdict]:
    """Edits by a frozen Attacker, judged against the Defender after round `number`; `samples` tell edits of
    one question apart.
    """
    opponent, verdicts, batch = (
        FrozenOpponent(game, stage, number),
        list[Verdict](),
        game.recipe.evaluation.batch,
    )

    def seed_of(question: VisualQuestion, sample: int) -> int:
        return game.seed(stage.name, question.id, sample)

    with game.screen.stage(title, len(questions)) as bar:
        for start in range(0, len(questions), batch):
            part, numbers = questions[start : start + batch], samples[start : start + batch]
            images = pictures_of(part)
            edits = frozen_edits(
                game, attacker, part, images, [seed_of(q, s) for q, s in zip(part, numbers, strict=True)]
            )
            own = opponent.face(
                attacker, part, images, [[edit] for edit in edits], seed_of=seed_of, first_samples=numbers
            )
            verdicts += [verdict for judged in own for verdict in judged]
            bar.advance(len(part), shares(verdicts))
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
