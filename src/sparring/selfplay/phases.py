"""The halves of a round: the Attacker learns against a frozen Defender, its edits become a curriculum, the
Defender learns from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sparring.attackers.distillation import distillation_warning
from sparring.config import AttackerSettings
from sparring.data.images import pictures_of
from sparring.data.records import VisualQuestion
from sparring.defenders.rollout import Item
from sparring.engine.crew import Crew
from sparring.engine.screen import figures_of
from sparring.engine.stages import Schedule, Stage, Trainer, train
from sparring.judging.judge import require_some
from sparring.seeds import draw
from sparring.selfplay.blind import blind_check
from sparring.selfplay.curriculum import Curriculum, Place, Silence, compose
from sparring.selfplay.drift import DriftWatch, drift_questions
from sparring.selfplay.game import Game
from sparring.selfplay.heldout import static_edits
from sparring.selfplay.seats import (
    AttackerSeat,
    DefenderSeat,
    Learner,
    adapters_before,
    is_step_distilled,
)
from sparring.selfplay.track import track_updates
from sparring.selfplay.turns import (
    answers_when_clean,
    attacker_after,
    defender_after,
    edit_and_judge,
    reward_means,
    right_when_clean,
    shares,
)


def train_attacker(game: Game, number: int) -> None:
    """Attacker `number`, from Attacker `number - 1`, learns to fool the frozen Defender `number - 1` on what
    that one gets right when clean.

    With `attacker.past_share` some of an update's questions face the Defenders before that one, each on what
    it gets right itself.
    """
    stage, settings = game.stage(f"round{number}/attacker"), game.recipe.attacker
    if stage.done:
        return
    past = range(number - 1) if settings.past_share else range(0)
    questions = {
        n: right_when_clean(game, n)[: settings.steps * settings.questions_per_step]
        for n in (number - 1, *past)
    }
    stage.begin(resumes=True)
    clean = {n: answers_when_clean(game, n) for n in questions}
    with game.crew(
        "attacker",
        AttackerSeat,
        stage.name,
        number,
        clean,
        attackers=[attacker_after(number - 1)],
        defenders=[defender_after(n) for n in questions],
        together=True,
    ) as crew:
        _train_attacker(game, stage, number, questions, crew)


def _train_attacker(
    game: Game,
    stage: Stage,
    number: int,
    questions: Mapping[int, Sequence[VisualQuestion]],
    crew: Crew[AttackerSeat],
) -> None:
    settings, seed = game.recipe.attacker, game.seed(stage.name)
    distilled = crew.all(is_step_distilled)[0]
    if warning := distillation_warning(settings, step_distilled=distilled):
        game.screen.warn(f"{stage.name}: {warning}")
    watched, seeds = drift_questions(game)
    drift = DriftWatch(
        game, stage, lambda: crew.all(AttackerSeat.drift, watched, pictures_of(watched), seeds)[0]
    )

    def update(step: int) -> dict[str, Any]:
        pairing = pair(questions, number - 1, settings, step, seed)
        chosen = [question for own in pairing.values() for question in own]
        told = crew.all(AttackerSeat.update, step, pairing, pictures_of(chosen))
        faced = [one for _, own in told for one in own]
        for one in faced:
            one.record(game.ledger, stage.name, step)
        flat = [verdict for one in faced for own in one.verdicts for verdict in own]
        if not flat:  # nobody could be rewarded
            refused = crew.all(AttackerSeat.refused)
            for n in pairing:
                require_some(questions[n], {name: why for own in refused for name, why in own[n].items()})
        return {**told[0][0], **shares(flat), **reward_means(flat)}

    history = _phase(
        game,
        stage,
        Group(game, crew),
        update,
        settings.steps if questions[number - 1] else 0,
        f"round {number}: Attacker",
        ("reward_mean", "accepted", "fooled"),
        on_state=drift.look,
    )
    kept = crew.all(AttackerSeat.settle)[0]
    stage.folder_written_whole("editor", lambda folder: crew.all(AttackerSeat.write, folder))
    if history:
        drift.look(len(history))
    warnings = []
    if not questions[number - 1]:
        warnings.append(
            "the Defender gets no training question right when clean, so the Attacker had nothing to "
            "attack and did not train"
        )
    elif history and not any(metrics["fooled"] for metrics in history):
        warnings.append("the Attacker found nothing: no accepted edit of its training fooled the Defender")
    if history and all(metrics.get("dead_groups", 1) == 1 for metrics in history):
        warnings.append("no group of edits had a signal, so the Attacker learned nothing")
    ended_early = bool(questions[number - 1]) and len(history) < settings.steps
    left_out = left_out_of(game, stage)
    _finish(
        game,
        stage,
        {"updates": len(history), "kept_update": kept, "ended_early": ended_early, "warnings": warnings}
        | left_out,
    )


class Group:
    """A crew that trains one player, as `stages.train` takes a trainer."""

    def __init__(self, game: Game, crew: Crew[Any]) -> None:
        self.game, self.crew = game, crew

    def save(self, folder: Path) -> None:
        """All members call it; the first one writes."""
        self.crew.all(Learner.save, folder)

    def load(self, folder: Path) -> None:
        """Every member reads it."""
        self.crew.all(Learner.load, self.game.engine.carried(folder, [folder]))


def left_out_of(game: Game, stage: Stage) -> dict[str, Any]:
    """What a stage's result tells of questions that the Defender refused; nothing where there are none."""
    lost = game.ledger.unjudged(stage.name)
    return {"left_out": lost} if lost else {}


def pair(
    questions: Mapping[int, Sequence[VisualQuestion]],
    last: int,
    settings: AttackerSettings,
    step: int,
    seed: int,
) -> dict[int, list[VisualQuestion]]:
    """The questions of one update by the number of the Defender that they are put to; no question comes
    twice.

    questions: what each Defender gets right when clean. Defender `last` has its share; the past ones, in
    turns, have the rest.
    """
    count, past = settings.questions_per_step, sorted(n for n in questions if n != last and questions[n])
    facing_past = round(count * settings.past_share) if past else 0
    counts = {n: len(range((i - step) % len(past), facing_past, len(past))) for i, n in enumerate(past)}
    pairing, taken = dict[int, list[VisualQuestion]](), set[str]()
    for n, wanted in {last: count - facing_past, **counts}.items():
        due = draw(questions[n], min(count, len(questions[n])), step, seed, n)
        own = [question for question in due if question.id not in taken][:wanted]
        taken.update(question.id for question in own)
        if own:
            pairing[n] = own
    return pairing


def write_curriculum(game: Game, number: int) -> None:
    """The frozen Attacker `number` edits training pictures that Defender `number - 1` gets right when clean;
    the edits are judged.

    With `curriculum.rivals` these edit in its place.
    """
    stage, settings = game.stage(f"round{number}/curriculum"), game.recipe.selfplay.curriculum
    if stage.done:
        return
    stage.begin()
    if settings.clean_share == 1.0:
        _finish(game, stage, {"edits": 0, "accepted": 0, "effective": 0, "warnings": []})
        return
    # as far as there are enough, none that the Attacker trained on
    questions = right_when_clean(game, number - 1)[-settings.questions :]
    title = f"round {number}: curriculum"
    if settings.rivals:
        verdicts = static_edits(game, stage, number - 1, questions, title=title)
    else:
        verdicts = edit_and_judge(game, stage, attacker_after(number), number - 1, questions, title=title)
    accepted, effective = (
        sum(v.accepted for v in verdicts),
        sum(v.accepted and v.efficacy > 0 for v in verdicts),
    )
    by = " and ".join(settings.rivals) or "the frozen Attacker"
    warnings = [] if accepted else [f"no edit of {by} was accepted"]
    counts = {"edits": len(verdicts), "accepted": accepted, "effective": effective}
    _finish(game, stage, {**counts, "warnings": warnings} | left_out_of(game, stage))


def train_defender(game: Game, number: int) -> None:
    """Defender `number`, from Defender `number - 1`, learns from the round's curriculum, clean items and
    earlier rounds' edits.

    One that is an endpoint stays as it is.
    """
    stage, settings = game.stage(f"round{number}/defender"), game.recipe.defender
    if stage.done:
        return
    stage.begin(resumes=True)
    if game.league.defender_is_fixed:
        stage.finish({"rollouts": 0, "kept_groups": 0, "updates": 0, "ended_early": False, "warnings": []})
        return
    curriculum, warnings = curriculum_of(game, number)
    warnings += blind_check(game, number) if settings.steps else []
    last = number == game.recipe.selfplay.rounds and settings.final_interpolation < 1
    with game.crew(
        "defender",
        DefenderSeat,
        stage.name,
        number,
        stage.folder / "served",
        defenders=[defender_after(number - 1), *([defender_after(0)] if last else [])],
        beside=adapters_before(game.league, number),
        together=True,
    ) as crew:
        imitates = settings.algorithm.type == "sft"
        history = (_imitate if imitates else _reinforce)(game, stage, crew, curriculum, number)
        crew.all(DefenderSeat.settle)
        stage.folder_written_whole("model", lambda folder: crew.all(DefenderSeat.write, folder))
    if not imitates and history and not any(metrics["kept_groups"] for metrics in history):
        warnings.append("no group of answers had a signal, so the Defender learned nothing")
    totals = {
        name: int(sum(metrics.get(name, 0) for metrics in history)) for name in ("rollouts", "kept_groups")
    }
    _finish(
        game,
        stage,
        totals
        | {"updates": len(history), "ended_early": len(history) < settings.steps, "warnings": warnings},
    )


def _reinforce(
    game: Game, stage: Stage, crew: Crew[DefenderSeat], curriculum: Curriculum, number: int
) -> list[dict[str, Any]]:
    """The Defender learns from rewards; the metrics of all updates."""
    settings, seed = game.recipe.defender, game.seed(stage.name)
    silence, needed = Silence(curriculum, game.ledger, stage.name, seed, silence_before(game, number)), 1

    def update(step: int) -> dict[str, Any]:
        nonlocal needed
        stream = curriculum.stream(seed, step, silent=silence.before(step))
        sample(crew, stream, settings.prompts_per_step, step, needed)
        metrics, answers = crew.all(DefenderSeat.learn, step)[0]
        groups, places = zip(*(divmod(i, settings.group_size) for i in range(len(answers))), strict=True)
        game.ledger.record_answers(stage.name, step, answers, samples=groups, trials=places)
        # Servers make batches of their own, and may charge for what turns out not to be wanted.
        needed = 1 if settings.rollout_server else int(metrics["batches"])
        return dict(metrics)

    return _phase(
        game,
        stage,
        Group(game, crew),
        update,
        settings.steps,
        f"round {number}: Defender",
        ("reward_mean", "kept_groups"),
    )


def sample(crew: Crew[DefenderSeat], stream: Iterator[Item], size: int, step: int, needed: int) -> None:
    """Sample batches of `size` items until update `step` wants no more. A crew of several begins with as many
    at once as the update before needed: its members' shares of one are too narrow to be quick, and what an
    update learns from is the same.
    """
    at_once, done = needed if crew.count > 1 else 1, False
    while not done:
        batches = [list(islice(stream, size)) for _ in range(at_once)]
        done, at_once = crew.all(DefenderSeat.sample, step, batches)[0], 1


def _imitate(
    game: Game, stage: Stage, crew: Crew[DefenderSeat], curriculum: Curriculum, number: int
) -> list[dict[str, Any]]:
    """The Defender learns the right replies to the same items; a phase without rewards has no plateau. The
    metrics of all updates.
    """
    settings, seed = game.recipe.defender, game.seed(stage.name)

    def update(step: int) -> dict[str, Any]:
        batch = list(islice(curriculum.stream(seed, step), settings.prompts_per_step))
        return dict(crew.all(DefenderSeat.imitate, step, batch)[0])

    return _phase(
        game, stage, Group(game, crew), update, settings.steps, f"round {number}: Defender", ("loss",)
    )


def curriculum_of(game: Game, number: int) -> tuple[Curriculum, list[str]]:
    """What a round's Defender learns from, and what a person should know about it."""
    fresh, *earlier = (weighted_edits(game, i) for i in range(number, 0, -1))
    return compose(
        game.train, fresh, [edit for edits in earlier for edit in edits], game.recipe.selfplay.curriculum
    )


def silence_before(game: Game, number: int) -> Mapping[Place, int]:
    """How many times in a row items have given no signal in the rounds before this one."""
    times: Mapping[Place, int] = {}
    if game.recipe.selfplay.curriculum.revisit < 1:
        for earlier in range(1, number):
            stage = f"round{earlier}/defender"
            silence = Silence(curriculum_of(game, earlier)[0], game.ledger, stage, game.seed(stage), times)
            times = silence.before(len(game.ledger.updates(stage)))
    return times


def weighted_edits(game: Game, number: int) -> list[tuple[str, Path]]:
    """A round's accepted edits; those that fooled the Defender that they faced as often as the recipe weighs
    them.
    """
    settings, edits = game.recipe.selfplay.curriculum, list[tuple[str, Path]]()
    for stage in (
        f"round{number}/curriculum",
        *((f"round{number}/attacker",) if settings.training_edits else ()),
    ):
        accepted, effective = (game.ledger.pictures(stage, only=only) for only in ("accepted", "effective"))
        edits += accepted + effective * (settings.effective_weight - 1)
    return edits


def _phase(
    game: Game,
    stage: Stage,
    trainer: Trainer,
    update: Callable[[int], dict[str, Any]],
    steps: int,
    title: str,
    shown: tuple[str, ...],
    *,
    on_state: Callable[[int], None] = lambda updates: None,
) -> list[dict[str, Any]]:
    """The updates of one player's training, resumed where they were cut off, with a bar that shows some of
    its figures: where the reward is one of them, it has a plateau.
    """
    settings = game.recipe.selfplay

    def on_update(metrics: dict[str, Any]) -> None:
        bar.advance(1, figures_of(metrics, *shown))
        track_updates(game)

    with game.screen.stage(title, steps) as bar:
        return train(
            stage,
            trainer,
            update,
            Schedule(
                steps,
                settings.checkpoint_every,
                settings.plateau_patience if "reward_mean" in shown else None,
            ),
            on_update=on_update,
            on_state=on_state,
            say=game.screen.say,
        )


def _finish(game: Game, stage: Stage, result: dict[str, Any]) -> None:
    for text in result["warnings"]:
        game.screen.warn(f"{stage.name}: {text}")
    stage.finish(result)
