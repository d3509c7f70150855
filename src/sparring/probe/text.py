"""The part of a probe that leaves pictures alone: clean answers, text conditions, consistency, certainty,
calibration, hallucination.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sparring.asking.conditions import CONDITIONS, CONTROLS, PLAIN, Name, under
from sparring.asking.prompts import render_prompt
from sparring.config import ProbeSettings
from sparring.data.records import LETTERS, VisualQuestion
from sparring.defenders.consistency import ConsistencyJudge
from sparring.engine.screen import Screen
from sparring.measures.calibration import calibration_report
from sparring.measures.conditions import condition_report
from sparring.measures.faithfulness import consistency_report, premises_of
from sparring.measures.hallucination import change_scores, changes_of, is_presence, presence_metrics
from sparring.measures.statistics import paired_bootstrap, rate
from sparring.probe.asking import Asker, Request, Said


def conditions_asked(settings: ProbeSettings) -> tuple[Name, ...]:
    """The plain question always comes first."""
    return (*CONDITIONS, *CONTROLS) if settings.text else (PLAIN,)


def ask_conditions(
    asker: Asker, questions: Sequence[VisualQuestion], settings: ProbeSettings, screen: Screen
) -> dict[Name, list[Said]]:
    """One Defender's answers under every condition."""
    found: dict[Name, list[Said]] = {}
    for condition in conditions_asked(settings):
        requests = []
        for place, question in enumerate(questions):
            premises = premises_of(found[PLAIN][place].answer.text) if condition != PLAIN else ""
            prompt = render_prompt(question, settings.defender.prompt)
            told = under(condition, question, prompt, settings.conditions, settings.seed, premises)
            requests.append(Request(question, question.image, told.prompt, told.start))
        with screen.stage(f"{asker.name}: {condition}", len(requests)) as bar:
            found[condition] = asker.ask(requests, bar, letters=settings.letters)
    return found


def text_figures(
    questions: Sequence[VisualQuestion],
    said: Mapping[Name, Sequence[Said]],
    clusters: Sequence[str],
    judges: Sequence[ConsistencyJudge],
    settings: ProbeSettings,
) -> dict[str, Any]:
    """Everything that is known of one Defender from its answers to clean pictures."""
    plain = said[PLAIN]
    by_id = {name: {one.answer.question_id: one.answer for one in own} for name, own in said.items()}
    figures: dict[str, Any] = {
        "clean_accuracy": rate([one.answer.right for one in plain]).as_dict(),
        "unparsed": rate([one.answer.choice is None for one in plain]).as_dict(),
        "conditions": {},
        "calibration": _calibration(questions, plain, clusters, settings) if settings.letters else None,
        "hallucination": _hallucination(questions, plain),
    }
    for name, own in said.items():
        report = condition_report(
            name,
            questions,
            by_id[PLAIN],
            by_id[name],
            clusters,
            hint_seed=settings.seed,
            resamples=settings.resamples,
            seed=settings.seed,
        )
        texts = [one.answer.text for one in own]
        judged = [[verdict.letter for verdict in judge.verdicts(questions, texts)] for judge in judges]
        consistency = consistency_report(
            questions,
            [one.answer for one in own],
            clusters,
            judged,
            resamples=settings.resamples,
            seed=settings.seed,
        )
        figures["conditions"][name] = report.as_dict() | {
            "certainty": _certainty(own, clusters, settings) if settings.letters else None,
            "consistency": consistency.as_dict(),
        }
    return figures


def _certainty(said: Sequence[Said], clusters: Sequence[str], settings: ProbeSettings) -> dict[str, Any]:
    """Mean entropy over the option letters (nats) and mean P(correct), of the answers that are a letter of
    their own.
    """
    scored = [
        (one.letters, cluster) for one, cluster in zip(said, clusters, strict=True) if one.letters is not None
    ]
    owners, zeros = [cluster for _, cluster in scored], [0.0] * len(scored)
    values = {
        "entropy": [score.entropy for score, _ in scored],
        "right_probability": [score.right_probability for score, _ in scored],
    }
    return {
        name: paired_bootstrap(own, zeros, owners, resamples=settings.resamples, seed=settings.seed).as_dict()
        for name, own in values.items()
    } | {"scored": rate([one.letters is not None for one in said]).as_dict()}


def _calibration(
    questions: Sequence[VisualQuestion],
    said: Sequence[Said],
    clusters: Sequence[str],
    settings: ProbeSettings,
) -> dict[str, Any] | None:
    scored = [
        (one.letters.probabilities, LETTERS.index(question.answer), cluster)
        for question, one, cluster in zip(questions, said, clusters, strict=True)
        if one.letters is not None
    ]
    if not scored:
        return None
    probabilities, answers, owners = zip(*scored, strict=True)
    return calibration_report(
        probabilities, answers, owners, resamples=settings.resamples, seed=settings.seed
    ).as_dict()


def _hallucination(questions: Sequence[VisualQuestion], said: Sequence[Said]) -> dict[str, Any] | None:
    """POPE's figures by category where there are yes-no questions, and change-aware scores where they come in
    pairs.
    """
    answers = [one.answer for one in said]
    pairs = [
        (question, answer)
        for question, answer in zip(questions, answers, strict=True)
        if is_presence(question)
    ]
    if not pairs:
        return None
    # A question of several of POPE's files counts in each of them.
    splits = [(question.category or "(none)").split(",") for question, _ in pairs]
    names = dict.fromkeys(name for own in splits for name in own)
    groups = {name: [pair for pair, own in zip(pairs, splits, strict=True) if name in own] for name in names}
    groups = {"all": pairs, **(groups if len(groups) > 1 else {})}
    changes = changes_of(questions, answers)
    return {
        "presence": {
            name: presence_metrics([q for q, _ in own], [a for _, a in own]) for name, own in groups.items()
        },
        "changes": change_scores(changes) if changes else None,
    }


def baselines(questions: Sequence[VisualQuestion]) -> dict[str, Any]:
    """What a Defender gets that never looks: always option A, always the most frequent letter."""
    majority = Counter(question.answer for question in questions).most_common(1)[0][0]
    return {
        name: rate([question.answer == letter for question in questions]).as_dict()
        for name, letter in (("first", "A"), ("majority", majority))
    }
