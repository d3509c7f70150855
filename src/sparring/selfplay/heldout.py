"""Held-out play: every Defender so far answers every opponent so far, each question once, and nothing is
judged twice.

An opponent's edits are made once, by the deterministic sampler, with the same noise for a question whoever
the Attacker is; the gate and the audit are recorded once. Rivals that nobody trained (`evaluation.rivals`)
are opponents like the Attackers, by the very same path. A cell of the payoff matrix is one Defender's greedy
answers to one opponent's pictures; where an edit was not accepted the attack has failed and the answer to
the clean picture stands. A question of which a Defender refuses any picture is in no cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from PIL.Image import Image

from sparring.asking.questions import answered, ask_each
from sparring.attackers.crops import crops_of
from sparring.attackers.rivals import Rival, load_rival
from sparring.attackers.rollout import round_trips
from sparring.data.errors import DataError, ModelError
from sparring.data.images import image_sha256, load_image, pictures_of
from sparring.data.pixels import sharpness_ratio
from sparring.data.records import Answer, Edit, Verdict, VisualQuestion
from sparring.data.words import plural
from sparring.engine.crew import Crew
from sparring.engine.stages import Stage
from sparring.judging.kinds import classify, nobody
from sparring.judging.vet import vet
from sparring.measures.payoff import CLEAN, Opponent, Payoff, play_off
from sparring.selfplay.game import Game, Table, at_the_table
from sparring.selfplay.turns import Asked, answers_to, defender_after, frozen_edits, shares

REENCODED = "reencoded"
UNGATED = (CLEAN, REENCODED)


def opponents_until(number: int) -> list[str]:
    """The columns of the payoff matrix after a round; 0 is the bootstrap."""
    return [*UNGATED, "bootstrap", *(f"round{i}" for i in range(1, number + 1))]


def opponents_of(game: Game, number: int) -> list[str]:
    """The same with the recipe's rivals at the end."""
    return [*opponents_until(number), *game.recipe.evaluation.rivals]


def defenders_until(number: int) -> list[str]:
    """The rows of the payoff matrix after a round."""
    return [defender_after(i) for i in range(number + 1)]


def evaluate(game: Game, number: int) -> Payoff:
    """Fill every cell of the payoff matrix that can be played after round `number` and has not been."""
    opponents, defenders = opponents_of(game, number), defenders_until(number)
    attackers = [name for name in opponents_until(number) if name not in UNGATED]
    missing = [(d, o) for d in defenders for o in opponents if not game.stage(f"evaluation/{o}/{d}").done]
    with game.crew("play", at_the_table, attackers=attackers, defenders=defenders) as crew:
        for opponent in opponents:
            make_pictures(game, opponent, crew)
        with game.screen.stage(f"round {number}: held-out play", len(missing)) as bar:
            for defender, opponent in missing:
                accuracy = play_cell(game, defender, opponent, crew)
                bar.advance(1, {"accuracy": accuracy})
    payoff = payoff_until(game, number)
    show(game, payoff)
    return payoff


@dataclass(frozen=True)
class Shown:
    """Held-out edits of some questions; without verdicts where nobody attacks. kinds: question id -> kind of
    the accepted ones.
    """

    edits: list[Edit]
    verdicts: list[Verdict] | None
    kinds: Mapping[str, str]


Held = tuple[str, Sequence[VisualQuestion], Sequence[Image]]
"""An opponent, questions, their clean pictures."""


def make_pictures(game: Game, opponent: str, crew: Crew[Table]) -> None:
    """An opponent's held-out pictures, made once, with their verdicts: integrity, duplicates, the auditor's
    word on the accepted ones.
    """
    stage, batch = game.stage(f"evaluation/{opponent}"), game.recipe.evaluation.batch
    if opponent == CLEAN or stage.done:
        return
    stage.begin()
    kinds: dict[str, str] = {}
    parts = [game.held_out[start : start + batch] for start in range(0, len(game.held_out), batch)]
    with game.screen.stage(f"held-out edits: {opponent}", len(game.held_out)) as bar:
        held = ((opponent, part, pictures_of(part)) for part in parts)
        work = reencode if opponent == REENCODED else attack
        for part, shown in zip(parts, crew.map(work, held), strict=True):
            game.ledger.record_edits(stage.name, 0, shown.edits)
            if shown.verdicts is not None:
                game.ledger.record_verdicts(stage.name, 0, shown.verdicts)
            kinds |= shown.kinds
            bar.advance(len(part), {})
    stage.finish({"kinds": kinds})


def reencode(table: Table, held: Held) -> Shown:
    """The control: what the editor's autoencoder alone does where the pictures would be edited. No gate,
    because nobody attacks.
    """
    opponent, questions, cleans = held
    editor, settings = table.league.attacker("bootstrap"), table.recipe.attacker
    crops = crops_of(questions, cleans, settings.crop, editor.multiple)
    with table.league.attackers_turn():
        pictures = round_trips(editor, cleans, crops, settings.micro_batch)
    made = zip(questions, pictures, strict=True)
    return Shown([Edit(question.id, opponent, "", 0, picture) for question, picture in made], None, {})


def attack(table: Table, held: Held) -> Shown:
    """Edits by a frozen Attacker or a rival, gated and audited; which Defender they fool is not asked."""
    opponent, questions, cleans = held
    edits = opponents_edits(table, opponent, questions, cleans)
    images = [edit.image for edit in edits]
    with table.league.defenders_turn():
        verdicts = vet(
            questions,
            cleans,
            edits,
            settings=table.recipe.judge,
            duplicates=table.league.duplicate_check(),
            device=table.league.device,
            audit=table.auditor.audit,
        )
    sharpness = [sharpness_ratio(clean, image) for clean, image in zip(cleans, images, strict=True)]
    verdicts = [
        replace(verdict, notes=verdict.notes | {"sharpness": ratio})
        for verdict, ratio in zip(verdicts, sharpness, strict=True)
    ]
    accepted = [place for place, verdict in enumerate(verdicts) if verdict.accepted]
    kinds = classify([cleans[i] for i in accepted], [images[i] for i in accepted], nobody)
    told = {questions[i].id: found.kind for i, found in zip(accepted, kinds, strict=True)}
    return Shown(edits, verdicts, told)


def opponents_edits(
    table: Table, opponent: str, questions: Sequence[VisualQuestion], cleans: Sequence[Image]
) -> list[Edit]:
    """One edit a question: a rival's, or a frozen Attacker's, with the same noise whoever the Attacker is."""
    rival = table.recipe.evaluation.rivals.get(opponent)
    if rival is not None:
        edits = load_rival(rival, name=opponent).edit(questions, cleans, table.recipe.seed)
        for edit, clean in zip(edits, cleans, strict=True):
            if edit.image.size != clean.size:
                raise DataError(
                    f"evaluation.rivals.{opponent}: {rival} turned the picture of question "
                    f'"{edit.question_id}" from {clean.width} x {clean.height} into {edit.image.width} x '
                    f"{edit.image.height} pixels, but held-out edits have their pictures' sizes. Mend it and "
                    "resume the run."
                )
        return edits
    seeds = [table.seed("evaluation", question.id) for question in questions]
    images = frozen_edits(table, opponent, questions, cleans, seeds)
    made = zip(questions, seeds, images, strict=True)
    return [
        Edit(question.id, opponent, table.instruction(question), seed, image)
        for question, seed, image in made
    ]


def play_cell(game: Game, defender: str, opponent: str, crew: Crew[Table]) -> float:
    """One Defender's greedy answers to one opponent's pictures; gives the share that is right of those that
    were asked.
    """
    stage = game.stage(f"evaluation/{opponent}/{defender}")
    stage.begin()
    source, batch = f"evaluation/{opponent}", game.recipe.evaluation.batch
    if opponent == CLEAN:
        pictures = {question.id: question.image for question in game.held_out}
    else:
        pictures = dict(game.ledger.pictures(source, only="all" if opponent in UNGATED else "accepted"))
    asked = [question for question in game.held_out if question.id in pictures]
    parts, answers = [asked[start : start + batch] for start in range(0, len(asked), batch)], list[Answer]()
    put = (
        Asked(
            defender, part, [load_image(pictures[question.id]) for question in part], game.seed("evaluation")
        )
        for part in parts
    )
    for part, found in zip(parts, crew.map(answers_to, put), strict=True):
        answers += answered(part, found, lambda text: game.screen.warn(f"{stage.name}: {text}"))
    game.ledger.record_answers(source, 0, answers)
    right = sum(answer.right for answer in answers)
    lost = sorted({question.id for question in asked} - {answer.question_id for answer in answers})
    stage.finish({"asked": len(asked), "right": right} | ({"left_out": lost} if lost else {}))
    return right / max(1, len(answers))


def counted(game: Game, number: int) -> list[VisualQuestion]:
    """The held-out questions of which every Defender up to a round answered all the pictures that it was
    shown: every cell is of the same ones. ModelError where none is left.
    """
    stages = [
        game.stage(f"evaluation/{opponent}/{name}")
        for opponent in opponents_of(game, number)
        for name in defenders_until(number)
    ]
    lost = {name for stage in stages for name in stage.result.get("left_out", ())}
    kept = [question for question in game.held_out if question.id not in lost]
    if not kept:
        raise ModelError(
            f"the Defenders refuse all {plural(len(game.held_out), 'held-out question')}. See the "
            f"warnings above."
        )
    return kept


def payoff_until(game: Game, number: int) -> Payoff:
    """The payoff matrix of the Defenders and opponents up to a round, from the ledger."""
    questions = counted(game, number)
    ids = [question.id for question in questions]
    opponents, right = [], dict[tuple[str, str], list[bool | None]]()
    for name in opponents_of(game, number):
        verdicts = {verdict.question_id: verdict for verdict in game.ledger.verdicts(f"evaluation/{name}")}
        opponents.append(Opponent(name, None if name in UNGATED else tuple(verdicts[i] for i in ids)))
        for defender in defenders_until(number):
            answers = {
                answer.question_id: answer.right
                for answer in game.ledger.answers(f"evaluation/{name}", defender)
            }
            right[defender, name] = [answers.get(i) for i in ids]
    clusters = [image_sha256(image) for image in pictures_of(questions)]
    return play_off(defenders_until(number), opponents, right, clusters)


def show(game: Game, payoff: Payoff) -> None:
    """The matrix as a person reads it."""
    width = max(len(name) for name in (*payoff.defenders, *(o.name for o in payoff.opponents))) + 2
    game.screen.say(" " * width + "".join(f"{o.name:>{width}}" for o in payoff.opponents))
    for name, row in zip(payoff.defenders, payoff.accuracy(), strict=True):
        game.screen.say(f"{name:<{width}}" + "".join(f"{cell.value:>{width}.3f}" for cell in row))


def static_edits(
    game: Game, stage: Stage, number: int, questions: Sequence[VisualQuestion], *, title: str
) -> list[Verdict]:
    """One edit of every question by the recipe's rivals in turns, judged against the Defender after round
    `number`; all goes into the ledger.
    """
    name, verdicts, batch = defender_after(number), list[Verdict](), game.recipe.evaluation.batch
    parts = [(start, questions[start : start + batch]) for start in range(0, len(questions), batch)]
    with (
        game.screen.stage(title, len(questions)) as bar,
        game.crew("play", at_the_table, defenders=[name]) as crew,
    ):
        asked = ((name, stage.name, start, part, pictures_of(part)) for start, part in parts)
        for (_, part), (edits, judged, answers) in zip(parts, crew.map(in_turns, asked), strict=True):
            game.ledger.record_edits(stage.name, 0, edits)
            game.ledger.record_answers(stage.name, 0, [replace(answer, defender=name) for answer in answers])
            game.ledger.record_verdicts(stage.name, 0, judged)
            verdicts += judged
            bar.advance(len(part), shares(verdicts))
    return verdicts


def in_turns(
    table: Table, asked: tuple[str, str, int, Sequence[VisualQuestion], Sequence[Image]]
) -> tuple[list[Edit], list[Verdict], list[Answer]]:
    """The part of `static_edits` that begins with that question."""
    defender, stage, start, questions, cleans = asked
    rivals = [load_rival(spec) for spec in table.recipe.selfplay.curriculum.rivals]
    edits = _in_turns(rivals, questions, cleans, start, table.seed(stage))
    with table.league.defenders_turn():
        return _judge(table, defender, questions, cleans, edits)


def _in_turns(
    rivals: Sequence[Rival],
    questions: Sequence[VisualQuestion],
    cleans: Sequence[Image],
    first: int,
    seed: int,
) -> list[Edit]:
    """Question `first + i` is edited by rival (first + i) mod the number of rivals."""
    edits: dict[int, Edit] = {}
    for turn, rival in enumerate(rivals):
        own = [place for place in range(len(questions)) if (first + place) % len(rivals) == turn]
        edits |= zip(
            own, rival.edit([questions[i] for i in own], [cleans[i] for i in own], seed), strict=True
        )
    return [edits[place] for place in range(len(questions))]


def _judge(
    table: Table,
    defender: str,
    questions: Sequence[VisualQuestion],
    cleans: Sequence[Image],
    edits: Sequence[Edit],
) -> tuple[list[Edit], list[Verdict], list[Answer]]:
    """The edits that changed something, their verdicts, and the Defender's greedy answers about those that
    passed the checks; but for those that it refuses, which have no verdict.
    """
    settings, duplicates, device = table.recipe.judge, table.league.duplicate_check(), table.league.device
    verdicts = vet(questions, cleans, edits, settings=settings, duplicates=duplicates, device=device)
    passed = [place for place, verdict in enumerate(verdicts) if verdict.accepted]
    asked, pictures = [questions[i] for i in passed], [edits[i].image for i in passed]
    found = (
        ask_each(table.league.defender(defender), asked, pictures, table.recipe.defender) if passed else []
    )
    answers = answered(asked, found, table.tell)
    lost = {question.id for question in asked} - {answer.question_id for answer in answers}
    wrong = {answer.question_id for answer in answers if not answer.right}
    made = [place for place, verdict in enumerate(verdicts) if not verdict.unchanged]
    judged = [
        replace(verdicts[i], efficacy=float(questions[i].id in wrong))
        for i in made
        if questions[i].id not in lost
    ]
    return [edits[i] for i in made], judged, answers
