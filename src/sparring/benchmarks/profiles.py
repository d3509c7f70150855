"""Scoring profiles: which rule reads a benchmark's answers, and which sum makes its figures. The same raw
answers can be scored under every profile.

A profile has a rule for a benchmark only where that harness, or the benchmark's own script, has one that
reads answers without a judge model. Where it asks one about what the rule leaves unread, so can we:
`sparring.benchmarks.judge`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from sparring.benchmarks.items import Item, Marked, Read
from sparring.benchmarks.rules import aot, figures, lmms_eval, official, sparring, vlmevalkit
from sparring.benchmarks.rules.figures import Aggregate
from sparring.data.errors import RecipeError

ProfileName = Literal["sparring", "official", "vlmevalkit", "lmms-eval", "aot"]
PROFILES: tuple[ProfileName, ...] = get_args(ProfileName)


@dataclass(frozen=True, slots=True)
class Rule:
    """How answers are read and added up. `note`: what a reader of the figures should know. `low_is_good`:
    of the first figure.

    `unjudged`: of a harness that asks a judge model where its rule reads nothing, the note for figures
    without one; "" of all others. `rows`: how many rows the first figure is over. `every_trial`: an item
    is right where all its replies are; other rules read the first. `choices`: what may be answered to an
    item, the first option first (nothing where the answer is free), and which of it is right.
    """

    read: Read
    figures: Aggregate
    note: str = ""
    low_is_good: bool = False
    unjudged: str = ""
    rows: Callable[[Sequence[Marked]], int] = len
    every_trial: bool = False
    choices: Callable[[Item], tuple[Sequence[str], str]] = lambda item: (item.choices, item.answer)


_HR, _HR_OLD = figures.cycles(), "the judge model, asked where no option is read, is left out"
_JUDGE = "exact_matching: no judge model is asked"
_CHAIR = "words are split and made singular by rules of our own, not by NLTK and pattern.en"
_ROWS = figures.exploded_rows
_MMMU = "where no option is read one is guessed, from a fixed seed"
RULES: dict[tuple[str, str], Rule] = {
    ("sparring", "custom"): Rule(sparring.strict, figures.accuracy),
    ("sparring", "vstar"): Rule(sparring.strict, figures.accuracy),
    ("sparring", "hrbench"): Rule(sparring.strict, _HR),
    ("sparring", "pope"): Rule(
        sparring.strict,
        figures.pope(rows=False),
        "over the different questions, not over the rows of the three files",
    ),
    ("sparring", "hallusionbench"): Rule(sparring.strict, figures.hallusion()),
    ("sparring", "mmmu"): Rule(sparring.strict, figures.accuracy),
    ("sparring", "mmstar"): Rule(sparring.strict, figures.accuracy),
    ("sparring", "realworldqa"): Rule(sparring.strict, figures.accuracy),
    ("sparring", "blink"): Rule(sparring.strict, figures.macro("category")),
    ("sparring", "ai2d"): Rule(sparring.strict, figures.accuracy),
    ("sparring", "vqav2"): Rule(sparring.strict, figures.accuracy),
    ("sparring", "amber"): Rule(
        sparring.strict, lambda marked: figures.detection(marked, positive="no"), 'the positive class is "no"'
    ),
    ("sparring", "chair"): Rule(sparring.strict, figures.chair, _CHAIR, low_is_good=True),
    ("official", "pope"): Rule(
        official.pope, figures.pope(rows=True), "every question once for each file that holds it", rows=_ROWS
    ),
    ("official", "hallusionbench"): Rule(
        official.hallusion,
        figures.hallusion(),
        unjudged="GPT-4 as a reader of answers is replaced by a rule for words",
    ),
    ("official", "mmmu"): Rule(official.mmmu, figures.accuracy, _MMMU),
    ("official", "mmstar"): Rule(official.mmstar, figures.accuracy),
    ("official", "blink"): Rule(
        official.blink,
        figures.macro("category"),
        unjudged="GPT-3.5, asked where no option is read, is left out",
    ),
    ("official", "vqav2"): Rule(official.vqa, figures.accuracy),
    ("official", "amber"): Rule(
        official.amber,
        figures.amber_official,
        'the positive class is "no"; only the replies "Yes" and "No" are read',
    ),
    ("official", "chair"): Rule(official.chair, figures.chair, _CHAIR, low_is_good=True),
    ("vlmevalkit", "custom"): Rule(vlmevalkit.custom, figures.accuracy, unjudged=_JUDGE),
    ("vlmevalkit", "vstar"): Rule(vlmevalkit.choice, figures.accuracy, unjudged=_JUDGE),
    ("vlmevalkit", "hrbench"): Rule(vlmevalkit.choice, _HR, unjudged=_JUDGE),
    ("vlmevalkit", "pope"): Rule(
        vlmevalkit.yes_no,
        figures.pope(rows=True),
        "every question once for each split",
        unjudged=_JUDGE,
        rows=_ROWS,
    ),
    ("vlmevalkit", "hallusionbench"): Rule(
        vlmevalkit.pictured_yes_no,
        figures.hallusion(with_category=False, figures_without_picture=True),
        "its keys mix the OCR sets of VD and VS",
        unjudged=_JUDGE,
    ),
    ("vlmevalkit", "mmmu"): Rule(
        vlmevalkit.mmmu,
        figures.splits,
        "each split apart; an open question is its answer against Other Answers",
        unjudged=_JUDGE,
        rows=figures.quoted_split_rows,
    ),
    ("vlmevalkit", "mmstar"): Rule(vlmevalkit.choice, figures.accuracy, unjudged=_JUDGE),
    ("vlmevalkit", "realworldqa"): Rule(vlmevalkit.choice, figures.accuracy, unjudged=_JUDGE),
    ("vlmevalkit", "blink"): Rule(vlmevalkit.choice, figures.accuracy, unjudged=_JUDGE),
    ("vlmevalkit", "ai2d"): Rule(vlmevalkit.choice, figures.accuracy, unjudged=_JUDGE),
    ("vlmevalkit", "vqav2"): Rule(vlmevalkit.vqa, figures.accuracy, "its vqa_score"),
    ("vlmevalkit", "amber"): Rule(vlmevalkit.yes_no, figures.amber_groups, unjudged=_JUDGE),
}
# What it takes for options is not always what was shown.
RULES |= {
    name: replace(
        rule, choices=vlmevalkit.mmmu_choices if rule.read is vlmevalkit.mmmu else vlmevalkit.choices
    )
    for name, rule in RULES.items()
    if rule.read in (vlmevalkit.choice, vlmevalkit.custom, vlmevalkit.mmmu)
}
_BY_LMMS: dict[str, Rule] = {
    "vstar": Rule(lmms_eval.vstar, figures.accuracy),
    "hrbench": Rule(lmms_eval.hrbench, figures.cycles(missing_is_0=False), unjudged=_HR_OLD),
    "pope": Rule(
        lmms_eval.pope,
        figures.pope(rows=True, missed_is_no=False),
        'only the replies "yes" and "no" are read',
        rows=_ROWS,
    ),
    "hallusionbench": Rule(
        lmms_eval.hallusion, figures.hallusion(figures_without_picture=True), "its variant without a judge"
    ),
    "mmmu": Rule(
        lmms_eval.mmmu, figures.accuracy, f"{_MMMU}; open questions never count, whatever is answered"
    ),
    "mmstar": Rule(lmms_eval.mmstar, figures.macro("l2_category")),
    "realworldqa": Rule(lmms_eval.realworldqa, figures.accuracy),
    "blink": Rule(lmms_eval.blink, figures.accuracy),
    "vqav2": Rule(lmms_eval.vqa, figures.accuracy),
}
RULES |= {
    ("lmms-eval", name): replace(rule, read=lmms_eval.as_run(rule.read)) for name, rule in _BY_LMMS.items()
}
# AI2D's filter reads raw replies, and takes the reasoning off by itself.
RULES["lmms-eval", "ai2d"] = Rule(lmms_eval.ai2d, figures.accuracy)
_TRIALS = "right where every trial is; unreadable pictures are left out of the denominator"
_BY_AOT: dict[str, Rule] = {
    "vstar": Rule(aot.vstar, figures.accuracy, _TRIALS),
    "hrbench": Rule(aot.hrbench, figures.accuracy, f"over all rows, not the mean over cycles; {_TRIALS}"),
    "pope": Rule(aot.pope, figures.pope(rows=False), f"over the different questions; {_TRIALS}"),
    "hallusionbench": Rule(
        aot.hallusion,
        figures.hallusion(with_category=False, figures_without_picture=True),
        f"questions with a picture, keys without the category; {_TRIALS}",
    ),
}
RULES |= {("aot", name): replace(rule, every_trial=True) for name, rule in _BY_AOT.items()}


def rule_of(profile: str, benchmark: str) -> Rule:
    """The rule of a profile for a benchmark. Raises RecipeError, naming the profiles that have one,
    where it has none.
    """
    if (profile, benchmark) not in RULES:
        raise RecipeError(
            f"profile {profile} has no rule for {benchmark}. There are {', '.join(profiles_of(benchmark))}."
        )
    return RULES[profile, benchmark]


def profiles_of(benchmark: str) -> list[ProfileName]:
    """The profiles that have a rule for a benchmark, in a fixed order."""
    return [profile for profile in PROFILES if (profile, benchmark) in RULES]


def asked_again_by(profile: str, benchmark: str) -> Rule:
    """The rule by which an item is asked again while it is right: of all that know the benchmark the one that
    wants every trial, whichever is quoted; else the quoted one. Raises RecipeError as `rule_of` does.
    """
    quoted = rule_of(profile, benchmark)
    return next((rule for (_, name), rule in RULES.items() if name == benchmark and rule.every_trial), quoted)
