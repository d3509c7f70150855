"""Does a Defender say that it sees what is not there? POPE's figures on yes-no probes, and scores that follow
a change.

Probes are made from any annotated pictures by `sparring.data.presence`.

Change-aware scores (BEAF, Ye-Bin et al. 2024, arXiv 2407.13442; there for removed objects, here for added
ones alike): a question is asked before and after an edit. Of questions whose truth changed: true
understanding, right both times; ignorance, wrong both times; stubbornness, the same answer twice, always yes
or always no. Of questions whose truth stayed: indecision, the answer changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparring.data.presence import NO, YES
from sparring.data.records import Answer, VisualQuestion
from sparring.measures.statistics import Rate, rate

BEFORE, AFTER = "-before", "-after"


def word_of(option: str) -> str:
    """An option as it is compared: "Yes." is "yes"."""
    return option.strip().rstrip(".").lower()


def said(question: VisualQuestion, answer: Answer) -> str | None:
    """ "yes" or "no", or None where the reply was not read."""
    if answer.choice is None:
        return None
    return word_of(question.options[question.letters.index(answer.choice)])


def is_presence(question: VisualQuestion) -> bool:
    """The options are yes and no."""
    return set(map(word_of, question.options)) == {YES, NO}


def presence_metrics(questions: Sequence[VisualQuestion], answers: Sequence[Answer]) -> dict[str, Any]:
    """POPE's figures with "yes" as the positive class: accuracy, precision, recall, f1, yes_rate, and how
    many replies could not be read.

    A reply that was not read is wrong, and no "yes": it lowers accuracy and, where the object is there,
    recall. Figures without a denominator are None.
    """
    pairs = [
        (word_of(question.answer_text) == YES, said(question, answer))
        for question, answer in zip(questions, answers, strict=True)
    ]
    true_yes = sum(truth and word == YES for truth, word in pairs)
    false_yes = sum(not truth and word == YES for truth, word in pairs)
    there = sum(truth for truth, _ in pairs)
    precision = true_yes / (true_yes + false_yes) if true_yes + false_yes else None
    recall = true_yes / there if there else None
    f1 = (
        2 * precision * recall / (precision + recall)
        if precision and recall
        else (None if precision is None or recall is None else 0.0)
    )
    return {
        "accuracy": rate([word == (YES if truth else NO) for truth, word in pairs]).as_dict(),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "yes_rate": rate([word == YES for _, word in pairs]).as_dict(),
        "unparsed": rate([word is None for _, word in pairs]).as_dict(),
    }


@dataclass(frozen=True, slots=True)
class Change:
    """One yes-no question before and after an edit: the truth, and what was said (None: not read)."""

    truth_before: bool
    truth_after: bool
    said_before: str | None
    said_after: str | None

    @property
    def kind(self) -> str:
        """ "added", "removed", or "kept" where the truth is the same."""
        return "kept" if self.truth_before == self.truth_after else "added" if self.truth_after else "removed"


CHANGED = ("true_understanding", "ignorance", "stubborn_yes", "stubborn_no", "unread")


def outcome(change: Change) -> str:
    """Which of `CHANGED` a question whose truth changed came to."""
    words = change.said_before, change.said_after
    if None in words:
        return "unread"
    if words[0] == words[1]:
        return f"stubborn_{words[0]}"
    return "true_understanding" if (words[0] == YES) == change.truth_before else "ignorance"


def change_scores(changes: Sequence[Change]) -> dict[str, Any]:
    """For "added", "removed" and both together ("changed") the shares of each outcome; for "kept" indecision.
    Every share with n and its interval.

    Of a kept question, a reply that was not read before or after is no indecision; "unread" tells how many
    there are.
    """
    found: dict[str, Any] = {}
    for kind in ("added", "removed", "changed"):
        own = [
            outcome(change)
            for change in changes
            if change.kind == kind or (kind == "changed" and change.kind != "kept")
        ]
        shares: dict[str, Rate] = {name: rate([word == name for word in own]) for name in CHANGED}
        shares["stubbornness"] = rate([word.startswith("stubborn") for word in own])
        found[kind] = {name: share.as_dict() for name, share in shares.items()}
    kept = [change for change in changes if change.kind == "kept"]
    unread = [None in (change.said_before, change.said_after) for change in kept]
    undecided = [
        change.said_before != change.said_after and not lost
        for change, lost in zip(kept, unread, strict=True)
    ]
    found["kept"] = {"indecision": rate(undecided).as_dict(), "unread": rate(unread).as_dict()}
    return found


def changes_of(questions: Sequence[VisualQuestion], answers: Sequence[Answer]) -> list[Change]:
    """Pairs of yes-no questions whose ids differ in their ends alone, "-before" and "-after"; questions
    without a partner are left out.
    """
    known = {
        question.id: (question, answer)
        for question, answer in zip(questions, answers, strict=True)
        if is_presence(question)
    }
    found = []
    for name, (question, answer) in known.items():
        partner = known.get(name.removesuffix(BEFORE) + AFTER) if name.endswith(BEFORE) else None
        if partner is not None:
            truths = [word_of(one.answer_text) == YES for one in (question, partner[0])]
            found.append(Change(truths[0], truths[1], said(question, answer), said(*partner)))
    return found
